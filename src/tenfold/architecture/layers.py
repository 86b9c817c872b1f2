"""An architecture: a network as plain data.

Layers are frozen values; an :class:`Architecture` is a tuple of them with the pixels' size and the number of classes.
Engines build their own module from it, ``export.onnx`` a graph, and ``weights`` derives every weight's name, shape and
dtype from it alone. Every network takes uint8 pixels N×H×W×3 and gives float32 logits N×classes.

Inside a network a picture is channels × rows × columns; ``Flatten`` unrolls it in that order.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from tenfold.errors import BundleError

Kind = Literal["relu", "gelu", "silu"]
Init = Literal["he", "torch", "dirac", "whiten", "zeros", "ones", "glorot"]

MAX_LAYERS = 2000
MAX_UNITS = 65536
MAX_SIZE = 4096
MAX_DEPTH = 4
MAX_EXTERNAL_WEIGHTS = 20_000
MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1


class Layer:  # a marker; every subclass is a frozen dataclass
    """A layer's settings, without its weights. ``kind`` names it in files and in the weights' names."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Normalize(Layer):
    """uint8 pixels to float32: ``(pixel / 255 - mean) / std`` by channel. Always the first layer.

    Weights ``mean`` and ``std``, 3 each, come from the training images; they count as statistics, not as parameters.
    """

    kind: ClassVar[str] = "normalize"


@dataclass(frozen=True)
class Conv(Layer):
    """2-D convolution, square kernel. ``padding`` in pixels on each side.

    ``init``: ``he`` (normal, fan-in), ``torch`` (PyTorch's default: uniform, bound 1/√fan-in), ``glorot`` (uniform),
    ``dirac`` (as ``torch``, but the first in-channel filters pass their input on), ``whiten`` (patch-PCA whitening of
    the training images, Page's myrtle-cifar and Jordan's airbench). ``frozen`` keeps the kernel as it starts; a bias
    is trained.
    """

    kind: ClassVar[str] = "conv"
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = False
    init: Init = "he"
    frozen: bool = False


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel over batch and pixels; after ``Flatten``, each feature over the batch.

    ``momentum`` is the share of the running statistics kept at each step (Keras's meaning; PyTorch's is one minus it).
    """

    kind: ClassVar[str] = "batchnorm"
    momentum: float = 0.9
    eps: float = 1e-5
    scale: bool = True
    center: bool = True


@dataclass(frozen=True)
class Activation(Layer):
    """``relu``, ``gelu`` (exact, by erf) or ``silu``."""

    kind: ClassVar[str] = "activation"
    function: Kind = "relu"


@dataclass(frozen=True)
class Pool(Layer):
    """Max or average pooling without padding; what doesn't fill a window at the edge is dropped."""

    kind: ClassVar[str] = "pool"
    function: Literal["max", "average"] = "max"
    size: int = 2
    stride: int = 2


@dataclass(frozen=True)
class GlobalPool(Layer):
    """The maximum or mean over all pixels of each channel; gives N×channels."""

    kind: ClassVar[str] = "globalpool"
    function: Literal["max", "average"] = "average"


@dataclass(frozen=True)
class Dropout(Layer):
    """Leaves out a share ``rate`` of the values at random in training; nothing afterwards."""

    kind: ClassVar[str] = "dropout"
    rate: float = 0.5


@dataclass(frozen=True)
class Residual(Layer):
    """``body(x) + shortcut(x)``; an empty shortcut is the identity."""

    kind: ClassVar[str] = "residual"
    body: tuple[Layer, ...] = ()
    shortcut: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Flatten(Layer):
    """N×C×H×W to N×(C·H·W), channels first, then rows, then columns."""

    kind: ClassVar[str] = "flatten"


@dataclass(frozen=True)
class Dense(Layer):
    """Every unit sees every feature."""

    kind: ClassVar[str] = "dense"
    units: int
    bias: bool = True
    init: Init = "torch"


@dataclass(frozen=True)
class Scale(Layer):
    """Multiplies by a constant (airbench scales its logits by 1/9)."""

    kind: ClassVar[str] = "scale"
    factor: float = 1.0


@dataclass(frozen=True)
class External(Layer):
    """A whole network of another library, from normalised pixels to ``units`` logits. It stands alone after Normalize.

    Its weights are told here, so that names, shapes and roles follow from the architecture without the library:

    library   whose it is: ``timm``, ``keras``
    name      what the library calls it: ``resnet18``
    dropout   rate before the last layer
    head      the library's names of the last layer's modules, which are new for each set of classes
    weights   (the library's name, shape, role ``trained``, ``frozen`` or ``statistic``) of every float tensor
    """

    kind: ClassVar[str] = "external"
    library: str
    name: str
    units: int
    dropout: float = 0.0
    head: tuple[str, ...] = ()
    weights: tuple[tuple[str, tuple[int, ...], str], ...] = ()


LAYERS: dict[str, type[Layer]] = {
    c.kind: c
    for c in (
        Normalize, Conv, BatchNorm, Activation, Pool, GlobalPool, Dropout, Residual, Flatten, Dense, Scale, External,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A network: ``layers`` from uint8 pixels of ``height`` × ``width`` × 3 to ``classes`` logits."""

    name: str
    height: int
    width: int
    classes: int
    layers: tuple[Layer, ...]

    @property
    def external(self) -> External | None:
        """The other library's network that this one is, if it is one."""
        return next((layer for layer in self.layers if isinstance(layer, External)), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "height": self.height,
            "width": self.width,
            "classes": self.classes,
            "layers": [_layer_to_dict(layer) for layer in self.layers],
        }

    @staticmethod
    def from_dict(data: Any) -> Architecture:
        """The architecture written by :meth:`to_dict`.

        The text may come from a stranger: every field is checked for type and bound, and a BundleError names the first
        that does not fit.
        """
        if not isinstance(data, Mapping):
            raise BundleError("architecture is not an object.")
        _known(data, {"name", "height", "width", "classes", "layers"}, "architecture")
        name = data.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise BundleError("architecture.name is not a name.")
        architecture = Architecture(
            name=name,
            height=_whole(data.get("height"), "architecture.height", 1, MAX_SIZE),
            width=_whole(data.get("width"), "architecture.width", 1, MAX_SIZE),
            classes=_whole(data.get("classes"), "architecture.classes", 1, MAX_UNITS),
            layers=_layers_from(data.get("layers"), "architecture.layers", 0),
        )
        from tenfold.architecture.weights import output_shapes

        output_shapes(architecture)
        return architecture


def _layer_to_dict(layer: Layer) -> dict[str, Any]:
    out: dict[str, Any] = {"kind": layer.kind}
    for f in dataclasses.fields(layer):  # type: ignore[arg-type]
        out[f.name] = _plain(getattr(layer, f.name))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, Layer):
        return _layer_to_dict(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _known(data: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise BundleError(f"{where} has an unknown field {str(key)[:60]!r}.")


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BundleError(f"{where} must be a whole number from {low} to {high}.")
    return value


_BOUNDS: dict[str, tuple[int, int]] = {
    "filters": (1, MAX_UNITS),
    "units": (1, MAX_UNITS),
    "kernel": (1, 64),
    "stride": (1, 64),
    "size": (1, 64),
    "padding": (0, 64),
}
_CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("activation", "function"): get_args(Kind),
    ("pool", "function"): ("max", "average"),
    ("globalpool", "function"): ("max", "average"),
    ("conv", "init"): get_args(Init),
    ("dense", "init"): get_args(Init),
}


def _layers_from(data: Any, where: str, depth: int) -> tuple[Layer, ...]:
    if not isinstance(data, list) or len(data) > MAX_LAYERS or depth > MAX_DEPTH:
        raise BundleError(f"{where} is not a list of at most {MAX_LAYERS} layers, {MAX_DEPTH} deep.")
    return tuple(_layer_from(item, f"{where}[{i}]", depth) for i, item in enumerate(data))


def _layer_from(data: Any, where: str, depth: int) -> Layer:
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in LAYERS:
        raise BundleError(f"{where} is not a known layer.")
    layer_class = LAYERS[kind]
    fields = {f.name: f for f in dataclasses.fields(layer_class)}  # type: ignore[arg-type]
    _known(data, {"kind", *fields}, where)
    values: dict[str, Any] = {}
    for name in fields:
        if name not in data:
            raise BundleError(f"{where}.{name} is missing.")
        values[name] = _value_from(data[name], kind, name, f"{where}.{name}", depth)
    return layer_class(**values)


def _value_from(value: Any, kind: str, name: str, where: str, depth: int) -> Any:
    if (kind, name) in _EXTERNAL:
        return _EXTERNAL[kind, name](value, where)
    if name in ("body", "shortcut"):
        return _layers_from(value, where, depth + 1)
    if name in _BOUNDS:
        return _whole(value, where, *_BOUNDS[name])
    if (kind, name) in _CHOICES:
        if value not in _CHOICES[kind, name]:
            raise BundleError(f"{where} must be one of {', '.join(_CHOICES[kind, name])}.")
        return value
    if name in ("bias", "frozen", "scale", "center"):
        if not isinstance(value, bool):
            raise BundleError(f"{where} must be true or false.")
        return value
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1e6 <= value <= 1e6:
        raise BundleError(f"{where} must be a number.")
    return float(value)


# ---- another library's network, as a stranger may have written it ---------------------------------------------------

_NATIVE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]{0,199}")


def _native(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NATIVE.fullmatch(value):
        raise BundleError(f"{where} is not a name of 1 to 200 letters, digits and _ . / : -.")
    return value


def _head(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 16:
        raise BundleError(f"{where} is not a list of at most 16 names.")
    return tuple(_native(name, f"{where}[{i}]") for i, name in enumerate(value))


def _share(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise BundleError(f"{where} must be a number from 0 to below 1.")
    return float(value)


def _weights(value: Any, where: str) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_EXTERNAL_WEIGHTS:
        raise BundleError(f"{where} is not a list of 1 to {MAX_EXTERNAL_WEIGHTS:,} weights.")
    out = tuple(_weight(item, f"{where}[{i}]") for i, item in enumerate(value))
    if len({name for name, _, _ in out}) != len(out):
        raise BundleError(f"{where} names a weight twice.")
    return out


def _weight(value: Any, where: str) -> tuple[str, tuple[int, ...], str]:
    if not isinstance(value, list) or len(value) != 3:
        raise BundleError(f"{where} is not a name, a shape and a role.")
    name, shape, role = value
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise BundleError(f"{where}: the shape is not a list of at most {MAX_DIMENSIONS} sizes.")
    if role not in ("trained", "frozen", "statistic"):
        raise BundleError(f"{where}: the role must be trained, frozen or statistic.")
    sizes = tuple(_whole(size, f"{where}: a size", 1, MAX_DIMENSION) for size in shape)
    return _native(name, f"{where}: the name"), sizes, role


_EXTERNAL: dict[tuple[str, str], Callable[[Any, str], Any]] = {
    ("external", "library"): _native,
    ("external", "name"): _native,
    ("external", "dropout"): _share,
    ("external", "head"): _head,
    ("external", "weights"): _weights,
}
