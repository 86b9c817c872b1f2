"""TensorFlow on the CPU, for the SavedModels that ``export.saved_model`` writes. The only importer of tensorflow here.

A SavedModel may come from a stranger, and TensorFlow does what its graph says, reading and writing files among it. So
the graph is walked before it is loaded, and operators that tenfold has no need of are refused.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold.bundle import fields
from tenfold.errors import BundleError, CallError, MissingExtraError
from tenfold.runtimes import batches
from tenfold.runtimes.base import Runtime
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.graph import INPUT, OUTPUT

METADATA = "tenfold.json"
SIGNATURE = "serving_default"
MAX_METADATA = 8 * 2**20
_CPU = "/CPU:0"

# What the engine tensorflow builds, and how TensorFlow keeps variables (RestoreV2 and SaveV2 with what they need).
# fmt: off
OPERATORS = frozenset((
    "Abs", "Add", "AddN", "AddV2", "AssignVariableOp", "AvgPool", "BatchMatMulV2", "BiasAdd", "BroadcastTo", "Cast",
    "Concat", "ConcatV2", "Const", "Conv2D", "DepthwiseConv2dNative", "DisableCopyOnRead", "Einsum", "Elu", "Erf",
    "Erfc", "Exp", "ExpandDims", "Fill", "FusedBatchNormV3", "GatherV2", "Greater", "GreaterEqual", "Identity",
    "IdentityN", "LeakyRelu", "Less", "LogicalAnd", "MatMul", "Max", "MaxPool", "Maximum", "Mean",
    "MergeV2Checkpoints", "Min", "Minimum", "Mul", "Neg", "NoOp", "Pack", "Pad", "PadV2", "PartitionedCall",
    "Placeholder", "Pow", "Prod", "ReadVariableOp", "RealDiv", "Reciprocal", "Relu", "Relu6", "Reshape",
    "RestoreV2", "Rsqrt", "SaveV2", "Select", "SelectV2", "Selu", "Shape", "ShardedFilename", "Sigmoid", "Slice",
    "Softmax", "Softplus", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze",
    "StatefulPartitionedCall", "StaticRegexFullMatch", "StopGradient", "StridedSlice", "StringJoin", "Sub", "Sum",
    "Tanh", "Tile", "Transpose", "Unpack", "VarHandleOp", "VarIsInitializedOp",
))
# fmt: on

FILING = frozenset(("MergeV2Checkpoints", "RestoreV2", "SaveV2"))


class SavedModelRuntime(Runtime):
    """A SavedModel in TensorFlow. Made by :func:`open_artifact`."""

    name = "tensorflow"
    device = "cpu"

    def __init__(self, tensorflow: Any, model: Any, where: str) -> None:
        self._tensorflow, self._where = tensorflow, where
        self._model = model  # the signature holds no reference to it
        self._call = model.signatures.get(SIGNATURE)
        self.sizes = _sizes(self._call, where)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model fails or gives no finite numbers.
        """
        tf = self._tensorflow

        def answer(batch: np.ndarray) -> np.ndarray:
            with tf.device(_CPU):
                found: np.ndarray = self._call(**{INPUT: tf.constant(batch)})[OUTPUT].numpy()
            return found

        return batches.ask(answer, images, self.sizes, self._where, "TensorFlow")


def metadata(path: Path, where: str) -> dict[str, str]:
    """The texts in the asset tenfold.json of the SavedModel in the folder ``path``."""
    file = path / "assets" / METADATA
    try:
        if file.stat().st_size > MAX_METADATA:
            raise BundleError(f"{where}: {METADATA} is larger than {MAX_METADATA >> 20} MiB.")
        data = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}.") from None
    return texts(data, f"{where}: {METADATA}")


def texts(data: bytes, where: str) -> dict[str, str]:
    """A JSON object of texts. Raises BundleError for anything else."""
    found = fields.anything(fields.strict_json(data, where), where)
    if not all(isinstance(value, str) for value in found.values()):
        raise BundleError(f"{where} holds what is no text.")
    return found


def open_artifact(path: Path, *, threads: int | None = None, where: str) -> SavedModelRuntime:
    """The SavedModel in the folder ``path``, ready to answer.

    ``threads``: how many compute one batch; None is every core this process may use. TensorFlow takes it once in a
    process, before it first computes. Raises MissingExtraError without TensorFlow, BundleError for a folder that is no
    SavedModel or holds operators that tenfold never writes.
    """
    if threads is not None and threads < 1:
        raise CallError(f"threads must be 1 or more, not {threads}.")
    tf = _tensorflow()
    _inspect(path / "saved_model.pb", where)
    with contextlib.suppress(RuntimeError):  # it has computed already
        tf.config.threading.set_intra_op_parallelism_threads(threads or hardware.cores())
    try:
        with tf.device(_CPU):
            model = tf.saved_model.load(str(path))
    except (
        Exception
    ) as error:  # TensorFlow's errors share no base class with OSError and ValueError, which it throws too
        raise BundleError(f"{where} can't be loaded by TensorFlow: {batches.first_line(error)}") from error
    return SavedModelRuntime(tf, model, where)


def version() -> str:
    """``tensorflow`` and its version."""
    return f"tensorflow {hardware.versions('tensorflow').get('tensorflow', '')}".strip()


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow
    except ImportError:
        raise MissingExtraError("tensorflow", "tensorflow", "A SavedModel") from None
    return tensorflow


def _inspect(file: Path, where: str) -> None:
    """Refuses a graph with operators that tenfold never writes."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}.") from None
    except DecodeError:
        raise BundleError(f"{where} is damaged, or no SavedModel.") from None
    for part in proto.meta_graphs:
        functions = {f.signature.name: f.node_def for f in part.graph_def.library.function}
        for node in (*part.graph_def.node, *(node for nodes in functions.values() for node in nodes)):
            if node.op not in OPERATORS:
                raise _refused(where, f"the operator {node.op[:60]!r}")
        filing = {name for name, nodes in functions.items() if any(node.op in FILING for node in nodes)}
        # Called by the graph around the functions, which loading doesn't run; one that another calls could be run
        if any(name in filing for nodes in functions.values() for node in nodes for name in _called(node)):
            raise _refused(where, "a call that writes or reads files")


def _called(node: Any) -> list[str]:
    """The names of the functions that a node calls."""
    found = []
    for value in node.attr.values():
        found += [value.func.name, *(function.name for function in value.list.func)]
    return found


def _refused(where: str, what: str) -> BundleError:
    return BundleError(f"{where} holds {what}, which tenfold never writes into a model.", "It was not loaded.")


def _sizes(call: Any, where: str) -> Sizes:
    """The sizes of a signature whose one input and one output are a tenfold model's."""
    taken = call.structured_input_signature[1] if call is not None else {}
    given = call.structured_outputs if call is not None else {}
    if set(taken) != {INPUT} or set(given) != {OUTPUT}:
        raise BundleError(f"{where} does not take {INPUT} and give {OUTPUT}.")
    pixels, answer = taken[INPUT], given[OUTPUT]
    if (pixels.dtype.name, answer.dtype.name) != ("uint8", "float32"):
        raise BundleError(f"{where} takes {pixels.dtype.name} and gives {answer.dtype.name}, not uint8 and float32.")
    shape, last = pixels.shape.as_list(), answer.shape.as_list()
    if len(shape) != 4 or len(last) != 2 or shape[3] != 3 or None in (*shape[1:], last[1]):
        raise BundleError(f"{where} takes images of the shape {shape} and gives {last}.")
    return Sizes(shape[1], shape[2], last[1])
