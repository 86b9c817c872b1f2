"""Where things lie: data the user has, what tenfold caches, runs; and how a file is put there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def data_folders() -> list[Path]:
    """Folders searched for datasets, in order: ``TENFOLD_DATA`` (several, separated as in PATH), then the cache's."""
    given = [Path(p).expanduser() for p in os.environ.get("TENFOLD_DATA", "").split(os.pathsep) if p]
    return [*given, cache_folder() / "data"]


def cache_folder() -> Path:
    """``TENFOLD_CACHE``, else the platform's cache folder for tenfold."""
    if given := os.environ.get("TENFOLD_CACHE"):
        return Path(given).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "tenfold"


def runs_folder() -> Path:
    """``TENFOLD_RUNS``, else ``runs`` in the working folder."""
    return Path(os.environ.get("TENFOLD_RUNS", "runs"))


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash leaves the old content or the new: fsync, rename, fsync of the folder."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place, all files synced, when the block ends without an error.

    An existing folder at ``path`` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(temporary)
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename in ``path`` durable; folders can't be opened for this on Windows, where it is left out."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
