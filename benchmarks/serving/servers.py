"""Who serves, and how each is started: commands as their documentation gives them, each on a port of 127.0.0.1."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = HERE / "peers"


@dataclass(frozen=True)
class Settings:
    """run: the run folder that is served. workers: of those servers that must be told. pythons: named with --python."""

    run: Path
    scratch: Path
    workers: int
    pythons: Mapping[str, str] = field(default_factory=dict)

    def python(self, environment: str) -> str:
        import sys

        own = sys.executable if environment == "tenfold" else str(ROOT / ".bench" / environment / "bin" / "python")
        return self.pythons.get(environment, own)

    def program(self, environment: str, name: str) -> str:
        """A program that a package of an environment installs."""
        return str(Path(self.python(environment)).with_name(name))

    def model(self) -> Path:
        return self.run / "model" if (self.run / "model").is_dir() else self.run


@dataclass(frozen=True)
class Server:
    """``command`` gives what starts it; ``body`` is what is posted to ``path`` (see wire.request); of those with the
    same ``family`` the best is quoted. ``packages``: whose versions are told; the first must be importable."""

    name: str
    label: str
    environment: str
    packages: tuple[str, ...]
    command: Callable[[Settings, int], list[str]]
    body: str = "form"
    path: str = "/predict"
    family: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)

    def env(self, settings: Settings) -> dict[str, str]:
        more = {"MODEL": str(settings.model()), "BENTOML_DO_NOT_TRACK": "True"}
        return {**os.environ, **more, "BENTOML_HOME": str(settings.scratch / "bentoml"), **self.environ}


def tenfold(settings: Settings, port: int) -> list[str]:
    return [settings.python("tenfold"), "-m", "tenfold", "serve", str(settings.run), "--port", str(port)]


def _flask(settings: Settings, port: int) -> list[str]:
    return [settings.python("serving"), "-m", "flask", "--app", "flask_app", "run", "--port", str(port)]


def _gunicorn(settings: Settings, port: int) -> list[str]:
    workers = [
        "--workers",
        str(settings.workers),
        "--threads",
        "8",
    ]  # threads keep connections open; sync workers don't
    return [settings.program("serving", "gunicorn"), *workers, "--bind", f"127.0.0.1:{port}", "flask_app:app"]


def _litserve(*more: str) -> Callable[[Settings, int], list[str]]:
    def command(settings: Settings, port: int) -> list[str]:
        workers = ["--workers", str(settings.workers)]
        return [settings.python("serving"), "litserve_app.py", "--port", str(port), *workers, *more]

    return command


def _bentoml(settings: Settings, port: int) -> list[str]:
    at = ["--host", "127.0.0.1", "--port", str(port)]
    return [settings.program("serving", "bentoml"), "serve", "bentoml_app:Classifier", *at]


_OWN = ("tenfold", "onnxruntime", "pillow", "numpy", "starlette", "uvicorn", "uvloop", "httptools")
_TORCH = ("torch", "pillow", "numpy")
_LITSERVE = ("litserve", *_TORCH, "fastapi", "uvicorn", "uvloop")

SERVERS = (
    Server("tenfold", "tenfold serve", "tenfold", _OWN, tenfold),
    Server("tenfold-raw", "tenfold serve, the picture's bytes as body", "tenfold", _OWN, tenfold, body="raw"),
    Server("flask", "Flask + PyTorch, `flask run`", "serving", ("flask", "werkzeug", *_TORCH), _flask),
    Server("gunicorn", "Flask + PyTorch, gunicorn", "serving", ("gunicorn", "flask", *_TORCH), _gunicorn,
           environ={"OMP_NUM_THREADS": "1"}),  # a worker for each core: PyTorch's own threads would share them
    Server("litserve", "LitServe", "serving", _LITSERVE, _litserve(), family="litserve"),
    Server("litserve-batch", "LitServe, batches up to 16", "serving", _LITSERVE, _litserve("--batch", "16"),
           family="litserve"),
    Server("bentoml", "BentoML", "serving", ("bentoml", *_TORCH, "starlette", "uvicorn"), _bentoml),
)  # fmt: skip
