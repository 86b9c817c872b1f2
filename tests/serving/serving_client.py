"""A real ``tenfold serve`` for tests, a process of its own on a free port, and what is sent to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def png(seed: int = 0, size: tuple[int, int] = (12, 9), kind: str = "PNG") -> bytes:
    """A picture's bytes, another for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def slow(megapixels: float) -> bytes:
    """A picture of 46 bytes that takes about 25 ms a megapixel to decode."""
    side = round((megapixels * 1e6) ** 0.5)
    file = io.BytesIO()
    Image.new("RGBA", (side, side), (9, 99, 199, 50)).save(file, "WEBP", lossless=True, method=0)
    return file.getvalue()


def form(*files: tuple[str | None, bytes], boundary: str = "frontier") -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form with a part ``file`` for each (name, bytes)."""
    body = b""
    for name, data in files:
        said = f'; filename="{name}"' if name is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="file"{said}\r\n\r\n'.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal."""
        found = self.json
        code: str = found["code"] if isinstance(found["error"], str) else found["error"]["code"]
        return code


@dataclass
class Server:
    """A ``tenfold serve`` that is ready."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    models: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, timeout: float = 30) -> Reply:
        return self.ask("POST", path, body, headers, timeout)

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def figure(self, name: str, **labels: str) -> float:
        """A metric's value, those with the labels summed."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                total += float(value)
        return total

    def workers(self) -> list[int]:
        """Process numbers of the workers."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "tenfold.serving.worker"], capture_output=True, text=True
        )
        return [int(line) for line in found.stdout.split()]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Sends the signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    """Waits for something that must come true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


@contextlib.contextmanager
def serving(*arguments: str | Path, folder: Path, wait: bool = True, **env: str) -> Iterator[Server]:
    """``tenfold serve`` with these arguments on a free port; its output in ``folder/serve.log``."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "tenfold", "serve", "--port", "0", "--json", *map(str, arguments)]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **env})
    server = Server(process, 0, log)
    try:
        if wait:
            assert process.stdout is not None
            text = ""
            while not text.rstrip().endswith("}") or text.count("{") > text.count("}"):
                line = process.stdout.readline()
                assert line, f"the server ended: {log.read_text()}"
                text += line
            told = json.loads(text)
            server.port, server.models = int(told["address"].rpartition(":")[2]), told["models"]
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
