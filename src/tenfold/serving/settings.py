"""How a server is set up: every limit and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenfold.data.decode import MAX_PIXELS

MIB = 2**20


@dataclass(frozen=True)
class Models:
    """What the workers hold.

    paths      by the name that requests use; the first is the default
    runtime    what computes, as for ``tenfold predict``
    device     an engine's device
    threshold  in the place of the models' own; None leaves them
    max_pixels of a picture, told from its header
    max_parts  pictures in one request
    """

    paths: Mapping[str, Path]
    runtime: str = "onnxruntime"
    device: str = "auto"
    threshold: float | None = None
    max_pixels: int = MAX_PIXELS
    max_parts: int = 64


@dataclass(frozen=True)
class Settings:
    """``tenfold serve``'s options. Times in seconds, sizes in bytes.

    workers          processes that compute; with a device of an engine's one computes and these decode
    batch            requests that share one call of the model at most: on two cores 4 gave 1 to 13 % more requests/s
                     than 1 or 8, of a small network and photos of 500×375
    queue            requests that wait for a worker at most; more are answered 503
    memory           of all requests under way, received and waiting
    deadline         from a request's last byte to its answer; then 504
    receive_timeout  for a request's body to arrive, from its headers on
    header_timeout   for a request's headers to arrive, from the connection or the first byte on
    idle_timeout     of a connection between two requests
    max_connections  open at once; above it the one that has been idle longest is closed
    drain            how long a server that was told to stop waits for requests under way
    key_file         keys that a request must name one of, a line each; None asks for none
    origins          of pages elsewhere that may ask (CORS); ``*`` is every one
    routes           the clouds' own paths: ``health`` and ``predict``
    """

    models: Models
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batch: int = 4
    queue: int = 512
    memory: int = 256 * MIB
    deadline: float = 10.0
    receive_timeout: float = 30.0
    header_timeout: float = 10.0
    idle_timeout: float = 75.0
    max_body: int = 32 * MIB
    max_header: int = 32 * 1024
    max_connections: int = 4096
    drain: float = 30.0
    key_file: Path | None = None
    origins: tuple[str, ...] = ()
    log: str = "text"
    routes: Mapping[str, str] = field(default_factory=dict)
