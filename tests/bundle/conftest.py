from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.bundle import manifest


@pytest.fixture
def reseal() -> Callable[..., None]:
    """(bundle's folder, change=None): write the manifest anew as one who means harm would, every digest right.

    ``change`` takes the manifest as plain JSON and alters it in place, after the files' digests were set.
    """

    def write(folder: Path, change: Callable[[dict[str, Any]], None] = lambda value: None) -> None:
        value = json.loads((folder / "manifest.json").read_bytes())
        for name in manifest.FILES:
            data = (folder / name).read_bytes()
            value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        change(value)
        value.pop("checksum", None)
        (folder / "manifest.json").write_text(manifest.seal(value), encoding="utf-8")

    return write
