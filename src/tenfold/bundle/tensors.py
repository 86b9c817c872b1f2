"""Arrays to and from the bytes of a safetensors file, and no other kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tenfold.errors import BundleError

# What other tools put under any name they like, and what must never be unpickled.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it",
    b"\x80": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy file",
}
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}


def other_kind(start: bytes) -> str | None:
    """What a file with these first bytes is, where it is one of the kinds that others use for weights."""
    return next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), None)


def save(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same arrays give the same bytes, in whatever order they come."""
    from safetensors.numpy import save as to_bytes

    data: bytes = to_bytes({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})
    return data


def load(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Writable float32 and uint8 arrays by name. Raises BundleError, naming ``where``, for anything else."""
    # A safetensors file starts with its header's length, below 2²⁷, in eight bytes: the last four are zero.
    if data[4:9] != b"\0\0\0\0{":
        kind = other_kind(data)
        raise BundleError(
            f"{where} is not a safetensors file{f' but {kind}' if kind else ''}.",
            "It was not loaded: such a file can run code." if kind else None,
        )
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)
    except SafetensorError as error:
        raise BundleError(f"{where} is not a sound safetensors file: {error}.") from None
    out = {}
    for name, tensor in found:
        values: dict[str, Any] = tensor
        if values["dtype"] not in _DTYPES:
            raise BundleError(f"{where} holds {name[:80]!r} as {values['dtype']}, not as F32 or U8.")
        flat = np.frombuffer(values["data"], _DTYPES[values["dtype"]])
        out[name] = flat.reshape(values["shape"]).astype(flat.dtype.newbyteorder("="), copy=True)
    return out
