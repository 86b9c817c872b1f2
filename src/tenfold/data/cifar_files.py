"""The files of a CIFAR archive as bytes, from a folder or from inside a ``.tar.gz``, and the pickles among
them.

Nothing of an archive is trusted: of a tar only the known members are read, into memory, none larger than it
can be; a pickle is read by an unpickler that knows four names, each standing for a harmless stand-in of ours,
so that not even NumPy's own code runs on what it says.
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tenfold.data.progress import Progress, Report
from tenfold.errors import DataError

if TYPE_CHECKING:
    from tenfold.data.cifar import Layout

# The largest true one is CIFAR-100's train with 155,249,918 bytes.
MAX_PICKLE = 170_000_000
MAX_META = 100_000
MAX_MEMBERS = 100
# What may follow the last member that is wanted: other members and the tar's padding.
MAX_REST = 200 * 2**20


@dataclass(frozen=True)
class Batch:
    """One file's pictures: ``labels`` int64 N, ``planes`` uint8 N×3072 (red, then green, then blue)."""

    name: str
    labels: np.ndarray
    planes: np.ndarray


@dataclass(frozen=True)
class Source:
    path: Path
    folder: str
    packed: bool

    def read(self, names: Sequence[str], size_of: Callable[[str], int | None], report: Report) -> dict[str, np.ndarray]:
        """The named files as uint8 arrays (memory maps from a folder); DataError for one missing or of another size."""
        try:
            return self._members(names, size_of, report) if self.packed else self._mapped(names, size_of)
        except OSError as error:
            raise DataError(f"{self.path} can't be read: {error.strerror or error}.") from None

    def _mapped(self, names: Sequence[str], size_of: Callable[[str], int | None]) -> dict[str, np.ndarray]:
        files: dict[str, np.ndarray] = {}
        for name in names:
            self._check_size(name, (self.path / name).stat().st_size, size_of(name))
            files[name] = np.memmap(self.path / name, np.uint8, "r")
        return files

    def _members(
        self, names: Sequence[str], size_of: Callable[[str], int | None], report: Report
    ) -> dict[str, np.ndarray]:
        files: dict[str, np.ndarray] = {}
        try:
            # Through gzip rather than tarfile's own stream, which never looks at the checksum at the end.
            with gzip.open(self.path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=2**20) as tar:
                self._take(tar, names, size_of, report, files)
                for _ in range(MAX_REST // 2**20):
                    if not stream.read(2**20):
                        break
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path} is damaged or cut short ({type(error).__name__}).", "Remove it and get it anew."
            ) from None
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{self.path} lacks {', '.join(missing)}; it is not the official archive.")
        return files

    def _take(
        self,
        tar: tarfile.TarFile,
        names: Sequence[str],
        size_of: Callable[[str], int | None],
        report: Report,
        files: dict[str, np.ndarray],
    ) -> None:
        """The wanted members into ``files``. A fixed number of members of a largest size bounds what is unpacked."""
        wanted = {f"{self.folder}/{name}": name for name in names}
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS or member.size > MAX_PICKLE:
                raise DataError(f"{self.path} is not the official archive: it holds many or very large files.")
            name = wanted.get(member.name.removeprefix("./"))
            if name is None or not member.isreg() or name in files:
                continue
            self._check_size(name, member.size, size_of(name))
            opened = tar.extractfile(member)
            content = opened.read() if opened else b""
            if len(content) != member.size:
                raise EOFError
            files[name] = np.frombuffer(content, np.uint8)
            report(Progress("read", len(files), len(names), "files"))
            if len(files) == len(names):
                break

    def _check_size(self, name: str, size: int, exact: int | None) -> None:
        where = f"{self.path}: {name}"
        if exact is not None and size != exact:
            raise DataError(
                f"{where} has {size:,} bytes, not {exact:,}; it is damaged or cut short.",
                "Unpack the official archive again.",
            )
        if size == 0 or size > MAX_PICKLE:
            raise DataError(f"{where} has {size:,} bytes, which no file of the official archive has.")


def names(content: np.ndarray, layout: Layout, path: Path) -> tuple[str, ...]:
    """The classes' names from ``batches.meta.txt`` and its like."""
    where = f"{path}: {layout.meta}"
    if content.size > MAX_META:
        raise DataError(f"{where} has {content.size:,} bytes, too many for a list of names.")
    if not layout.pickled:
        text = content.tobytes().decode("ascii", "replace")
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    found = _get(load_pickle(content, where), layout.names_key)
    if not isinstance(found, list) or not all(isinstance(n, bytes | str) for n in found):
        raise DataError(f"{where} has no list of {layout.names_key}.")
    return tuple(n.decode("ascii", "replace") if isinstance(n, bytes) else n for n in found)


def unpickled_batch(content: np.ndarray, key: str, rows: int, where: str) -> Batch:
    """The pictures of a pickled batch: a dictionary with ``data`` and ``labels`` or ``fine_labels``."""
    batch = load_pickle(content, where)
    data, labels = _get(batch, "data"), _get(batch, key)
    if not isinstance(data, _Array) or data.shape != (rows, 3072) or len(data.content) != rows * 3072:
        raise DataError(f"{where} has no {rows:,}×3072 pixels under 'data'; it is damaged.")
    if not isinstance(labels, list) or len(labels) != rows or not all(type(v) is int for v in labels):
        raise DataError(f"{where} has no {rows:,} numbers under {key!r}; it is damaged.")
    if not all(0 <= v < 256 for v in labels):
        raise DataError(f"{where} has labels out of range; it is damaged.")
    planes = np.frombuffer(data.content, np.uint8).reshape(rows, 3072)
    return Batch(where.rsplit(": ", 1)[-1], np.array(labels, np.int64), planes)


def load_pickle(content: np.ndarray, where: str) -> Any:
    """What a pickle of CIFAR's says, with ``_Array`` for arrays; DataError for any that says more."""
    try:
        return _Unpickler(io.BytesIO(content.tobytes()), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where} {error.message}", error.hint) from None
    # A damaged pickle raises nearly anything: UnpicklingError, EOFError, TypeError, KeyError, UnicodeError …
    except Exception as error:
        raise DataError(f"{where} is damaged: it can't be unpickled ({type(error).__name__}).") from None


def _get(mapping: Any, key: str) -> Any:
    """``mapping[key]``, whose keys are bytes where Python 2 wrote them."""
    if not isinstance(mapping, dict):
        return None
    return mapping.get(key.encode(), mapping.get(key))


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle: keeps the shape and the bytes of a C-ordered array of
    uint8."""

    shape: tuple[int, ...] = ()
    content: bytes = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _DType) or dtype.name not in ("u1", b"u1"):
            _refuse("holds an array of something other than bytes")
        if fortran or not isinstance(content, bytes) or not isinstance(shape, tuple):
            _refuse("holds an array in a layout that no CIFAR file has")
        self.shape = shape
        self.content = content


class _DType:
    """Stands for ``numpy.dtype``."""

    def __init__(self, name: Any, align: Any = 0, copy: Any = 1) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which single bytes don't have."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Python 3's way to write bytes in protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        _refuse(f"asks for the codec {encoding!r}")
    return text.encode("latin1")


def _refuse(what: str) -> NoReturn:
    raise DataError(f"{what}; refused, since a pickle can run any program.", "Use the official archive.")


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            _refuse(f"names {module}.{name}, which no CIFAR file needs")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        _refuse("holds a persistent reference")
