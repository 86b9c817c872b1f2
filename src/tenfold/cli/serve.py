"""``tenfold serve``: models behind HTTP, until told to stop."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli import render
from tenfold.errors import CallError, MissingExtraError, UnsupportedError

if TYPE_CHECKING:
    from tenfold.serving.service import Service
    from tenfold.serving.settings import Settings

# Panels of --help.
WHERE, WHO, LIMITS = "Where it listens and computes", "Who may ask", "Limits"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PACKAGES = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def serve(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="A run, bundle or artifact folder, or a model.onnx; several as NAME=RUN, the first the default.",
        ),
    ],
    host: Annotated[
        str, typer.Option(rich_help_panel=WHERE, help="The address to listen on; 0.0.0.0 is every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(rich_help_panel=WHERE, help="The port; 0 is any that is free.")] = 8000,
    workers: Annotated[
        str,
        typer.Option(metavar="N", rich_help_panel=WHERE, help="Processes that decode and compute; auto is one a core."),
    ] = "auto",
    runtime: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=WHERE, help="What computes, as for tenfold predict.")
    ] = "onnxruntime",
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", rich_help_panel=WHERE, help="Where: auto, cpu, cuda, or another device of an engine's."
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(help="Answers below this probability are unknown (default: the model's own)."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=WHO, help="Keys, a line each; a request must name one."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", rich_help_panel=WHO, help="Pages of this origin may ask; repeatable."),
    ] = None,
    deadline: Annotated[
        float, typer.Option(metavar="S", rich_help_panel=LIMITS, help="Seconds from a whole request to its answer.")
    ] = 10.0,
    queue: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=LIMITS, help="Requests that wait; more are answered 503.")
    ] = 512,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", rich_help_panel=LIMITS, help="Of one request: 32MiB, 10MB …")
    ] = "32MiB",
    max_pixels: Annotated[
        float, typer.Option(metavar="MP", rich_help_panel=LIMITS, help="Of one picture, in megapixels.")
    ] = 50.0,
    max_pictures: Annotated[int, typer.Option(metavar="N", rich_help_panel=LIMITS, help="In one request.")] = 64,
    max_connections: Annotated[int, typer.Option(metavar="N", rich_help_panel=LIMITS, help="Open at once.")] = 4096,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", rich_help_panel=LIMITS, help="Of all requests under way together.")
    ] = "256MiB",
    receive_timeout: Annotated[
        float, typer.Option(metavar="S", rich_help_panel=LIMITS, help="Seconds for a request's body to arrive.")
    ] = 30.0,
    drain: Annotated[
        float, typer.Option(metavar="S", rich_help_panel=LIMITS, help="Seconds for requests under way when stopped.")
    ] = 30.0,
    log: Annotated[str, typer.Option(metavar="FORM", help="text, json, none; auto is text in a terminal.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when ready.")] = False,
) -> None:
    """Put a trained model behind HTTP: POST a picture, get classes with calibrated probabilities.

    The page at / takes pictures too; /docs says how programs ask, /metrics is for Prometheus. SIGTERM and Ctrl-C end it
    when the requests under way are answered; SIGHUP takes up models that have changed.
    """
    _require()
    from tenfold.serving.settings import Models, Settings

    _least(
        deadline=(deadline, 0.001),
        queue=(queue, 1),
        max_pictures=(max_pictures, 1),
        max_pixels=(max_pixels, 0.001),
        max_connections=(max_connections, 1),
        receive_timeout=(receive_timeout, 0.1),
        drain=(drain, 0),
    )
    _check(port, threshold, log)
    from tenfold.serving.server import run as serving

    settings = Settings(
        models=Models(_models(run), runtime, device, threshold, round(max_pixels * 1e6), max_pictures),
        host=host,
        port=port,
        workers=_workers(workers),
        queue=queue,
        memory=_size(memory, "--memory"),
        deadline=deadline,
        receive_timeout=receive_timeout,
        max_body=_size(max_body, "--max-body"),
        max_connections=max_connections,
        drain=drain,
        key_file=api_key_file,
        origins=tuple(cors or ()),
        log=log if log != "auto" else "text" if sys.stderr.isatty() else "json",
        routes=_clouds(),
    )
    serving(settings, lambda service, address: _tell(service, address, as_json))


def _require() -> None:
    missing = next((p for p in _PACKAGES if importlib.util.find_spec(p) is None), None)
    if missing is not None:
        raise MissingExtraError(missing.replace("_", "-"), "serve", "tenfold serve")
    if sys.platform == "win32":
        raise UnsupportedError("tenfold serve does not run on Windows.", "Run it in a container, or in WSL.")


def _least(**given: tuple[float, float]) -> None:
    for name, (value, low) in given.items():
        if not value >= low:
            raise CallError(f"--{name.replace('_', '-')} must be {low} or more, not {value}.")


def _check(port: int, threshold: float | None, log: str) -> None:
    if not 0 <= port <= 65535:
        raise CallError(f"--port must be from 0 to 65535, not {port}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise CallError(f"--threshold must be from 0 to 1, not {threshold}.")
    if log not in ("auto", "text", "json", "none"):
        raise CallError(f"--log must be text, json, none or auto, not {log!r}.")


def _models(given: list[str]) -> dict[str, Path]:
    """Paths by name: ``NAME=RUN``, or a run under its folder's name."""
    found: dict[str, Path] = {}
    for text in given:
        name, mark, path = text.partition("=")
        if not mark or not _NAME.fullmatch(name) or Path(text).exists():
            name, path = _named(Path(text)), text
        if name in found:
            raise CallError(f"Two models are called {name}.", f"Give them names: first={found[name]} second={path}")
        found[name] = Path(path)
    return found


def _named(path: Path) -> str:
    folder = path.absolute()
    if folder.name in ("model", "model.onnx", "manifest.json"):
        folder = folder.parent.parent if folder.parent.name == "model" else folder.parent
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name.removesuffix(".onnx")).lstrip("._-")[:100]
    return name or "model"


def _workers(given: str) -> int:
    from tenfold import hardware

    if given == "auto":
        return max(1, hardware.cores())
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= 1024):
        raise CallError(f"--workers must be auto or a number from 1, not {given!r}.")
    return int(given)


def _size(given: str, option: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?i?)b?", given.strip().lower())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise CallError(f"{option} {given!r} is no size.", "Write 32MiB, 10MB or a number of bytes.")
    return int(float(found[1]) * _UNITS[found[2]])


def _clouds() -> dict[str, str]:
    """Vertex AI says by environment variables which paths it asks."""
    found = {"health": os.environ.get("AIP_HEALTH_ROUTE", ""), "predict": os.environ.get("AIP_PREDICT_ROUTE", "")}
    return {name: path for name, path in found.items() if path.startswith("/")}


def _tell(service: Service, address: str, as_json: bool) -> None:
    settings: Settings = service.settings
    if as_json:
        models = {name: card["version"] for name, card in service.cards.items()}
        render.print_json({"address": address, "models": models, "workers": settings.workers})
        sys.stdout.flush()
        return
    out = render.console()
    for name, card in service.cards.items():
        test = card["metrics"].get("test") or {}
        accuracy = f", {100 * test['accuracy']:.2f} % on its test images" if "accuracy" in test else ""
        out.print(f"{render.printable(name)}: {len(card['classes'])} classes{accuracy}", soft_wrap=True)
    out.print(
        f"\nPage     {address}/\nDocs     {address}/docs\nTry      curl --data-binary @photo.jpg {address}/predict"
    )
    if settings.host not in ("127.0.0.1", "::1", "localhost") and settings.key_file is None:
        out.print("\nWhoever reaches this address may ask: --api-key-file asks for a key.", style="yellow")
    out.print("\nCtrl-C ends it.")
