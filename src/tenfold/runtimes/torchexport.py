"""PyTorch on the CPU, for the programs that ``export.torch_export`` writes.

A .pt2 is a ZIP archive that may hold pickles, compiled code, operators that open files, and texts that PyTorch
evaluates. So it is read through before PyTorch sees it, and refused where it holds anything that tenfold doesn't write.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold.bundle import fields
from tenfold.errors import BundleError, CallError, MissingExtraError
from tenfold.runtimes import batches
from tenfold.runtimes.base import Runtime
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.graph import INPUT
from tenfold.runtimes.savedmodel import MAX_METADATA, texts

METADATA = "tenfold.json"
MAX_PROGRAM = 256 * 2**20
_EMPTY = "data/sample_inputs/model.pt"
_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|extra/tenfold\.json"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(weight_\d+|tensor_\d+|model_(weights|constants)_config\.json)"
)
# Of sizes, as sympy writes them: symbols, whole numbers, sums and products.
_EXPRESSION = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, (?:positive|integer|nonnegative)=True){0,3}\)|Integer\(-?\d+\)|Add\(|Mul\(|[\d(), *+-])+"
)
# fmt: off
OPERATORS = frozenset((
    "_assert_tensor_metadata", "abs", "adaptive_avg_pool2d", "add", "add_", "addmm", "alias", "amax", "amin",
    "arange", "avg_pool2d", "batch_norm", "bitwise_not", "bmm", "cat", "chunk", "clamp", "clone", "constant_pad_nd",
    "contiguous", "conv2d", "cos", "cumsum", "detach", "detach_", "div", "dropout", "einsum", "elu", "eq", "exp",
    "expand", "expand_as", "flatten", "floor", "full", "gelu", "group_norm", "hardsigmoid", "hardsigmoid_",
    "hardswish", "hardswish_", "hardtanh", "hardtanh_", "index", "instance_norm", "layer_norm", "leaky_relu",
    "leaky_relu_", "lift_fresh_copy", "linalg_vector_norm", "linear", "log", "logical_not", "masked_fill", "matmul",
    "max_pool2d", "maximum", "mean", "minimum", "mish", "mul", "mul_", "narrow", "ne", "neg", "ones", "ones_like",
    "pad", "permute", "pow", "prelu", "reciprocal", "relu", "relu6", "relu_", "repeat", "reshape", "roll", "rsqrt",
    "rsub", "scaled_dot_product_attention", "select", "sigmoid", "sigmoid_", "silu", "silu_", "sin", "slice",
    "softmax", "softplus", "split", "split_with_sizes", "sqrt", "square", "squeeze", "stack", "sub", "sum",
    "sym_size", "tanh", "to", "transpose", "unbind", "unflatten", "unsqueeze", "upsample_bicubic2d",
    "upsample_bilinear2d", "view", "where", "zeros", "zeros_like",
))
# fmt: on
_TARGET = re.compile(r"torch\.ops\.aten\.(\w+)\.\w+|_operator\.(?:add|sub|mul|floordiv|getitem|eq|ge|le|neg)")


class TorchExportRuntime(Runtime):
    """A program of torch.export. Made by :func:`open_artifact`."""

    name = "torch-export"
    device = "cpu"

    def __init__(self, torch: Any, program: Any, where: str) -> None:
        self._torch, self._where = torch, where
        self.sizes = _sizes(program, where)
        self._module = program.module()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model fails or gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            with self._torch.no_grad():
                pixels = self._torch.from_numpy(np.array(batch))  # a tensor may not be of read-only memory
                found: np.ndarray = self._module(pixels).numpy()
            return found

        return batches.ask(answer, images, self.sizes, self._where, "PyTorch")


def metadata(path: Path, where: str) -> dict[str, str]:
    """The texts in the extra file tenfold.json, of an archive that was read through."""
    return inspect(path, where)


def open_artifact(path: Path, *, threads: int | None = None, where: str) -> TorchExportRuntime:
    """The program in the file ``path``, ready to answer. ``threads``: how many compute one batch, in the whole process;
    None is every core this process may use. Raises MissingExtraError without PyTorch, BundleError for a file that is
    no such program or holds what tenfold never writes."""
    if threads is not None and threads < 1:
        raise CallError(f"threads must be 1 or more, not {threads}.")
    inspect(path, where)
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "torch", "A torch.export program") from None
    torch.set_num_threads(threads or hardware.cores())
    try:
        return TorchExportRuntime(torch, torch.export.load(path), where)
    except BundleError:
        raise
    except Exception as error:  # PyTorch's errors share no base class with those that its readers throw
        raise BundleError(f"{where} can't be loaded by PyTorch: {batches.first_line(error)}") from error


def version() -> str:
    """``torch`` and its version."""
    return f"torch {hardware.versions('torch').get('torch', '')}".strip()


# ---- what the file holds ---------------------------------------------------------------------------------------------


def inspect(path: Path, where: str) -> dict[str, str]:
    """The texts in tenfold.json of the .pt2 ``path``, refusing what tenfold never writes into one."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = _entries(archive, where)
            for part in ("weights", "constants"):
                name = f"data/{part}/model_{part}_config.json"
                _plain(_json(archive, found, name, where), f"{where}: {name}")
            _program(_json(archive, found, "models/model.json", where), where)
            data = _bytes(archive, found, f"extra/{METADATA}", MAX_METADATA, where)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError):
        raise BundleError(f"{where} is damaged, or no torch.export program.") from None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from None
    return texts(data, f"{where}: {METADATA}")


def _entries(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by their names without the folder around them all."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename.partition("/")[2]
        if not _ENTRIES.fullmatch(name) or name in found:
            raise _refused(where, f"the file {entry.filename[:60]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or (name == _EMPTY and entry.file_size):
            raise _refused(where, f"a pickle or what is compressed: {entry.filename[:60]!r}")
        found[name] = entry
    return found


def _bytes(archive: zipfile.ZipFile, found: dict[str, zipfile.ZipInfo], name: str, most: int, where: str) -> bytes:
    if name not in found:
        raise BundleError(f"{where} lacks {name}.")
    if found[name].file_size > most:
        raise BundleError(f"{where}: {name} is larger than {most >> 20} MiB.")
    return archive.read(found[name])


def _json(archive: zipfile.ZipFile, found: dict[str, zipfile.ZipInfo], name: str, where: str) -> Any:
    return fields.strict_json(_bytes(archive, found, name, MAX_PROGRAM, where), f"{where}: {name}")


def _plain(value: Any, where: str) -> None:
    """Refuses tensors that are kept as pickles."""
    for entry in fields.anything(fields.anything(value, where).get("config"), where).values():
        if fields.anything(entry, where).get("use_pickle") is not False:
            raise _refused(where, "a pickle")


def _program(value: Any, where: str) -> None:
    """Refuses a program with other operators than OPERATORS, or with texts that PyTorch would evaluate."""
    if fields.anything(value, where).get("guards_code"):
        raise _refused(where, "code")
    for key, inner in _walk(value):
        if key == "target":
            match = _TARGET.fullmatch(inner) if isinstance(inner, str) else None
            if match is None or (match[1] is not None and match[1] not in OPERATORS):
                raise _refused(where, f"the operator {str(inner)[:60]!r}")
        elif key == "expr_str" and not (isinstance(inner, str) and len(inner) < 1000 and _EXPRESSION.fullmatch(inner)):
            raise _refused(where, f"the size {str(inner)[:60]!r}")
        elif key == "metadata" and inner != {}:
            raise _refused(where, "notes on where its code stood")


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of an object, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _refused(where: str, what: str) -> BundleError:
    return BundleError(f"{where} holds {what}, which tenfold never writes into a model.", "It was not loaded.")


def _sizes(program: Any, where: str) -> Sizes:
    """The sizes of a program whose one input and one output are a tenfold model's."""
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    if list(signature.user_inputs) != [INPUT] or len(signature.user_outputs) != 1:
        raise BundleError(f"{where} does not take {INPUT} and give probabilities.")
    pixels, answer = values.get(INPUT), values.get(signature.user_outputs[0])
    kinds = tuple(str(getattr(value, "dtype", None)) for value in (pixels, answer))
    if pixels is None or answer is None or kinds != ("torch.uint8", "torch.float32"):
        raise BundleError(f"{where} takes {kinds[0]} and gives {kinds[1]}, not uint8 and float32.")
    fixed = [*pixels.shape[1:], *answer.shape[1:]]
    if pixels.dim() != 4 or answer.dim() != 2 or not all(isinstance(n, int) for n in fixed) or fixed[2] != 3:
        raise BundleError(f"{where} takes images of the shape {list(pixels.shape)} and gives {list(answer.shape)}.")
    return Sizes(fixed[0], fixed[1], fixed[3])
