"""Which words ``tenfold serve`` is called with in a container: the models that are there, the address, the port."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tenfold import container
from tenfold.bundle.manifest import MANIFEST
from tenfold.errors import BundleError, CallError, TenfoldError

# An archive's own top folder and a run's folder inside it; deeper than that nobody's packing goes.
DEPTH = 3
MAX_FOLDERS = 1000


def arguments(words: list[str], root: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What stands after ``tenfold serve``.

    words  as the container was given them: folders to look for models in, ``DIR`` or ``NAME=DIR``, then options of
           tenfold serve. Without folders the platform's is taken.

    Raises BundleError where no model is found, CallError where the platform names one that can't be had.
    """
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    folders, options = words[:count], words[count:]
    models: list[str] = []
    for word in folders or [str(_given(root, environ))]:
        name, sign, folder = word.partition("=")
        named = bool(sign) and "/" not in name
        models += _named(name, Path(folder)) if named else _named("", Path(word))
    given = {word.partition("=")[0] for word in options}
    if "--host" not in given:
        options += ["--host", "0.0.0.0"]
    if "--port" not in given:
        options += ["--port", str(container.port(environ))]
    return [*models, *options]


def _given(root: Path, environ: Mapping[str, str]) -> Path:
    """The folder that the platform has put the model in: /opt/ml/model, or Vertex AI's AIP_STORAGE_URI."""
    uri = environ.get("AIP_STORAGE_URI", "").strip()
    if not uri:
        return root / "model"
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    mounted = Path("/gcs") / rest  # where Vertex AI mounts buckets, in the jobs in which it does
    if scheme == "gs" and mounted.is_dir():
        return mounted
    raise CallError(
        f"AIP_STORAGE_URI is {uri}, which is not mounted here, and this image does not download models.",
        "Build the model into an image (FROM tenfold, COPY model /opt/ml/model) and upload it without an artifact URI; "
        "docs/deploy.md shows it.",
    )


def _named(name: str, folder: Path) -> list[str]:
    """The models in ``folder`` as tenfold serve takes them: one alone is called ``name`` or as its run was, several by
    where they lie. The folder's own name says nothing, it is the platform's."""
    found = find(folder)
    if len(found) == 1:
        return [f"{name or _own_name(found[0])}={found[0]}"]
    start = [name] if name else []
    return [f"{_fit('-'.join([*start, *path.relative_to(folder).parts]))}={path}" for path in found]


def _own_name(path: Path) -> str:
    """The run's name in a bundle's manifest; what is wrong with the manifest is tenfold serve's to say."""
    from tenfold.bundle import store

    try:
        return _fit(store.open(path, verify=False).manifest.name)
    except TenfoldError:
        return "model"


def _fit(name: str) -> str:
    """As the name of a model in an address."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:100] or "model"


def find(folder: Path) -> list[Path]:
    """Run folders and bundle folders in ``folder``: itself, or the first ones met below it, sorted by path.

    Raises BundleError where there are none.
    """
    try:
        if not folder.is_dir():
            raise BundleError(
                f"There is no model: {folder} is no folder.",
                "Mount a run folder or a bundle there: docker run -v /path/to/run:/opt/ml/model:ro …",
            )
        if found := _nearest(folder):
            return found
    except PermissionError as error:
        raise BundleError(
            f"{error.filename} can't be read by the user that the server runs as (uid {os.geteuid()}).",
            "Let others read the model: chmod -R a+rX /path/to/run",
        ) from None
    inside = sorted(path.name for path in folder.iterdir())
    packed = [name for name in inside if name.endswith((".tar.gz", ".tgz", ".tar", ".zip"))]
    if packed:
        raise BundleError(f"{folder} holds {packed[0]}, which is not unpacked.", "Unpack it there first.")
    shown = ", ".join(inside[:8]) + (", …" if len(inside) > 8 else "")
    raise BundleError(
        f"There is no model in {folder}: " + (f"it holds {shown}." if inside else "it is empty."),
        "Expected: a run folder, a bundle folder (manifest.json, model.onnx …), or a folder that holds such.",
    )


def _nearest(folder: Path) -> list[Path]:
    """The run and bundle folders on the first level that has any. Hidden folders are passed over, links entered:
    Kubernetes mounts volumes by them."""
    level, seen = [folder], 0
    for _ in range(DEPTH + 1):
        if found := [path for path in level if (path / "model" / MANIFEST).is_file() or (path / MANIFEST).is_file()]:
            return found
        level = sorted(p for path in level for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        seen += len(level)
        if seen > MAX_FOLDERS:
            raise BundleError(f"{folder} holds more than {MAX_FOLDERS:,} folders and no model among the first of them.")
    return []
