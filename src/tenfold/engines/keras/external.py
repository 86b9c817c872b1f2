"""Networks of keras.applications (F. Chollet and others, Keras), in either engine on Keras.

Each is built without drawing or computing a value: all of them come as canonical weights. What it does to pixels before
its first kernel (``Rescaling``, ``Normalization``, or its module's ``preprocess_input``) is one affine map of each
colour, so it is measured and becomes the architecture's ``Normalize``, the same for pretrained weights and for random
ones. Where a family was trained on BGR, its first kernel is turned to RGB as its weights are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import applications

from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.architecture.weights import layer_name, specs
from tenfold.engines import external
from tenfold.engines.external import First, Pixels, native
from tenfold.errors import BundleError, DownloadError, RecipeError, UnknownNameError, UnsupportedError
from tenfold.recipe import Model
from tenfold.runtimes.batches import first_line

PRETRAINED_CLASSES = 1000  # of ImageNet, which all of them were trained on
ANY_SIZE = 224  # what those take that take any size
_PREFIX = (keras.layers.Rescaling, keras.layers.Normalization)


class Applications(external.Library):
    name = "keras"

    def pixels(self, model: Model) -> Pixels:
        return Pixels(_own_size(native(model.name)))

    def architecture(self, model: Model, height: int, width: int, classes: int) -> Architecture:
        name = native(model.name)
        made = network(External("keras", name, classes, model.dropout or 0.0), height, width)
        if made.output.shape != (None, classes):
            raise UnsupportedError(f"{model.name} does not give a number for each class.", "Take another network.")
        found = _named(made)
        weights = tuple((key, _turned(v.shape), _role(v)) for key, v in found.items())
        head = next(reversed(found)).rpartition(".")[0]
        layer = External("keras", name, classes, model.dropout or 0.0, (head,), weights)
        built = Architecture(model.name, height, width, classes, (Normalize(), layer))
        try:  # bounds as a reader of the manifest will have them
            return Architecture.from_dict(built.to_dict())
        except BundleError as error:
            raise UnsupportedError(f"{model.name} can't be described: {error.message}") from None

    def first_weights(self, architecture: Architecture, model: Model, seed: int) -> First:
        layer = architecture.external
        assert layer is not None
        values = _drawn(layer, architecture.height, architecture.width, seed)
        origin: dict[str, Any] = {}
        notes: tuple[str, ...] = ()
        if model.pretrained or model.pretrained_file is not None:
            values, origin, notes = _pretrained(layer, model, values)
        mean, std, _ = _normalization(layer.name)
        normalize = layer_name(0, Normalize())
        own = {f"{normalize}.mean": mean, f"{normalize}.std": std}
        own |= {f"{_home()}.{name}": value for name, value in values.items()}
        return First({name: np.array(own[name], np.float32, order="C") for name in specs(architecture)}, origin, notes)

    def graph(self, architecture: Architecture, weights: Mapping[str, np.ndarray]) -> bytes:
        from tenfold.engines.keras.graph import write

        layer = architecture.external
        assert layer is not None
        return write(architecture, network(layer, architecture.height, architecture.width), weights)


def network(layer: External, height: int, width: int, policy: str = "float32") -> Any:
    """Keras's model of an external architecture: pixels as Normalize leaves them, N×H×W×3, to logits. Its variables
    are zeros. RecipeError where it can't be made for pixels of this size or with this dropout."""
    size = _own_size(layer.name)
    settings: dict[str, Any] = {"input_shape": (height, width, 3), "classes": layer.units}
    if layer.dropout:
        settings[_dropout_setting(layer.name)] = layer.dropout
    try:
        return _without_prefix(_empty(layer.name, policy, **settings))
    except ValueError as error:
        raise RecipeError(
            f"keras:{layer.name} can't take pictures of {height}×{width}: {first_line(error)}",
            f"It was made for {size}: --set data.size={size}.",
        ) from None


def variables(model: Any) -> dict[str, Any]:
    """The model's variables by canonical name."""
    return {f"{_home()}.{name}": variable for name, variable in _named(model).items()}


def layers(model: Any) -> Iterator[Any]:
    """A model's layers, those of models within it too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers(layer)
        else:
            yield layer


def _home() -> str:
    return layer_name(1, External("", "", 1))


def _named(model: Any) -> dict[str, Any]:
    """Variables by ``layer.variable``. Keras numbers what has no name through the process; here through the network and
    the layer."""
    found: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for layer in layers(model):
        name, kind = layer.name, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
        if re.fullmatch(rf"{kind}(_\d+)?", name):
            counts[kind] += 1
            name = f"{kind}_{counts[kind]}"
        for at, variable in enumerate(layer.weights):
            own = "" if re.fullmatch(r"variable(_\d+)?", variable.name) else variable.name
            found[f"{name}.{own or f'variable_{at + 1}'}"] = variable
    return found


def _role(variable: Any) -> str:
    return "trained" if variable.trainable else "statistic"


# ---- building -------------------------------------------------------------------------------------------------------


def _constructor(name: str) -> Any:
    found = getattr(applications, name, None) if not name.startswith("_") else None
    if not inspect.isfunction(found):
        known = sorted(n for n, f in vars(applications).items() if inspect.isfunction(f))
        raise UnknownNameError("network of keras.applications", name, known)
    return found


def _dropout_setting(name: str) -> str:
    known = inspect.signature(_constructor(name)).parameters
    for setting in ("dropout_rate", "dropout"):
        if setting in known:
            return setting
    raise RecipeError(f"model.dropout is not a setting of the network keras:{name}.", "Take --set model.dropout=null.")


def _empty(name: str, policy: str = "float32", **settings: Any) -> Any:
    """A network whose weights are zeros."""
    return _built(name, policy, **settings)[0]


def _built(name: str, policy: str = "float32", **settings: Any) -> tuple[Any, dict[int, Any]]:
    """A network whose weights are zeros, and what they would be drawn by, by the variables' ``id``. To let Keras draw
    them takes JAX 10 to 20 seconds, for it compiles a function for each shape."""
    make = _constructor(name)
    with _defaults(policy), keras.StatelessScope():
        model = make(weights=None, classifier_activation=None, **settings)
        initializers = {id(variable): variable._initializer for variable in model.weights}
        for variable in model.weights:
            variable._initializer = _zeros  # called as the scope ends, which makes what was put off in it
    return model, initializers


def _zeros(shape: Any, dtype: Any = None) -> np.ndarray:
    return np.zeros(shape, np.float32)


@contextlib.contextmanager
def _defaults(policy: str = "float32") -> Iterator[None]:
    """Keras's global settings, which its networks are made by: a user's own file may have others."""
    before = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_image_data_format(before[1])


def _prefix(model: Any) -> list[Any]:
    """The layers that only scale and shift colours, before all others."""
    found = []
    for layer in model.layers[1:]:
        if not isinstance(layer, _PREFIX):
            break
        found.append(layer)
    return found


def _without_prefix(model: Any) -> Any:
    prefix = _prefix(model)
    return keras.Model(prefix[-1].output, model.output) if prefix else model


@functools.cache
def _own_size(name: str) -> int:
    """Height and width that the network was made for."""
    return _empty(name, classes=2).input_shape[1] or ANY_SIZE


@functools.cache
def _normalization(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """(mean, deviation, whether its weights are for BGR): what a network does to a pixel on the scale 0 to 1."""
    module = sys.modules[_constructor(name).__module__]
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.float32).reshape(4, 1, 1, 3)
    done = np.array(module.preprocess_input(pixels.copy(), data_format="channels_last"))
    prefix = _prefix(_empty(name, classes=2))
    if any(isinstance(layer, keras.layers.Normalization) and layer.input_mean is None for layer in prefix):
        # its numbers come with the pretrained weights: those of ImageNet, which random weights then get as well
        done = applications.imagenet_utils.preprocess_input(pixels.copy(), "channels_last", mode="torch")
        prefix = []
    for layer in prefix:
        done = np.array(keras.ops.convert_to_numpy(layer(done)))
    black, colours = done[0, 0, 0], done[1:, 0, 0]
    scale = colours - black  # a row for each colour that came in
    reversed_colours = bool(abs(scale[0, 2]) > abs(scale[0, 0]))
    if reversed_colours:
        scale, black = scale[:, ::-1], black[::-1]
    factor = np.diagonal(scale)
    return (-black / factor).astype(np.float32), (1 / factor).astype(np.float32), reversed_colours


# ---- first weights --------------------------------------------------------------------------------------------------


def _drawn(layer: External, height: int, width: int, seed: int) -> dict[str, np.ndarray]:
    """Values by ``layer.variable``, canonical, as the network's own initializers say, each from a stream of its own."""
    model, initializers = _built(layer.name, input_shape=(height, width, 3), classes=layer.units)
    found = _named(_without_prefix(model))
    return {
        name: _canonical(_draw(initializers[id(variable)], variable.shape, np.random.default_rng([seed, at])))
        for at, (name, variable) in enumerate(found.items())
    }


def _draw(initializer: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """What one of Keras's initializers means, drawn by NumPy: the same in TensorFlow and JAX, without compiling
    anything for each shape."""
    kinds = keras.initializers
    if isinstance(initializer, kinds.VarianceScaling):
        receptive = int(np.prod(shape[:-2]))
        fan_in, fan_out = (receptive * shape[-2], receptive * shape[-1]) if len(shape) > 1 else (shape[0], shape[0])
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
        variance = initializer.scale / max(1.0, fan)
        if initializer.distribution == "uniform":
            return rng.uniform(-((3 * variance) ** 0.5), (3 * variance) ** 0.5, shape)
        if initializer.distribution == "untruncated_normal":
            return rng.normal(0, variance**0.5, shape)
        return _truncated(rng, shape) * variance**0.5 / 0.87962566103423978  # the deviation that cutting leaves
    if isinstance(initializer, kinds.TruncatedNormal):
        return initializer.mean + initializer.stddev * _truncated(rng, shape)
    if isinstance(initializer, kinds.RandomNormal):
        return rng.normal(initializer.mean, initializer.stddev, shape)
    if isinstance(initializer, kinds.RandomUniform):
        return rng.uniform(initializer.minval, initializer.maxval, shape)
    return np.array(keras.ops.convert_to_numpy(initializer(shape, dtype="float32")))


def _truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, those beyond two deviations drawn again."""
    out = rng.normal(size=shape)
    while (far := np.abs(out) > 2).any():
        out[far] = rng.normal(size=int(far.sum()))
    return out


def _canonical(value: np.ndarray) -> np.ndarray:
    from tenfold.engines.keras.build import canonical

    return canonical({"": value})[""]


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A variable's shape as its canonical weight has it."""
    return tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else tuple(reversed(shape))


def _pretrained(
    layer: External, model: Model, drawn: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any], tuple[str, ...]]:
    """Values with pretrained weights, where they are from, and what is to be told of them."""
    name = layer.name
    path = Path(model.pretrained_file) if model.pretrained_file is not None else None
    source = _from_file(path, name, layer.units) if path is not None else _downloaded(name)
    found = {key: _canonical(keras.ops.convert_to_numpy(v)) for key, v in _named(_without_prefix(source)).items()}
    head = layer.head[0]
    body = {key for key in drawn if not key.startswith(f"{head}.")}
    for key in body:
        if key not in found or found[key].shape != drawn[key].shape:
            raise _misfit(str(path or "The download"), name, f"{key} is missing or has another shape")
    if _normalization(name)[2]:
        first = next(key for key in drawn if drawn[key].ndim == 4)
        found[first] = found[first][:, ::-1]
    whole = all(key in found and found[key].shape == drawn[key].shape for key in drawn)
    values = {key: found[key] if key in body or whole else value for key, value in drawn.items()}
    said = f"keras.applications ({name}, ImageNet)" if path is None else str(path)
    origin: dict[str, Any] = {"network": f"keras:{name}", "source": said, "license": None}
    if path is not None:
        with path.open("rb") as file:
            origin["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    notes = [f"Starts from the weights of {said}; Keras names no license of theirs, keras.io/api/applications does."]
    if whole:
        notes.append(f"Their last layer is taken over too, for it has {layer.units} classes as your data.")
    return values, origin, tuple(notes)


def _from_file(path: Path, name: str, classes: int) -> Any:
    """The network with the file's weights: with ImageNet's last layer, one of as many classes as the data, or none."""
    external.check_file(path, "keras")
    _require_whole(path)
    why = ""
    size = (_own_size(name), _own_size(name), 3)
    for top in ({"classes": PRETRAINED_CLASSES}, {"classes": classes}, {"include_top": False, "pooling": "avg"}):
        found = _empty(name, input_shape=size, **top)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.load_weights(path)
        except (ValueError, KeyError, OSError, AttributeError) as error:
            why = why or first_line(error)
            continue
        # Keras takes what fits and only warns of the rest: a matrix still of zeros was not in the file
        left = (key for key, v in _named(found).items() if len(v.shape) > 1 and not keras.ops.any(v.value))
        lacking = next(left, None)
        if lacking is None:
            return found
        why = why or f"it lacks {lacking}"
    raise _misfit(str(path), name, why)


def _require_whole(path: Path) -> None:
    """Refuses an HDF5 file that names other files for its contents, which its reader would open."""
    import h5py

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            inside = group[name] if isinstance(link, h5py.HardLink) else None
            if inside is None or getattr(inside, "external", None) or getattr(inside, "is_virtual", False):
                raise RecipeError(f"{path} keeps its weights in other files.", "It was not loaded.")
            if isinstance(inside, h5py.Group):
                look(inside)

    try:
        with h5py.File(path) as file:
            look(file)
    except (OSError, RuntimeError, KeyError, RecursionError) as error:
        raise RecipeError(f"{path} is not a sound HDF5 file: {first_line(error)}") from None


def _downloaded(name: str) -> Any:
    try:
        with _defaults(), contextlib.redirect_stdout(io.StringIO()):
            return _constructor(name)(weights="imagenet", classifier_activation=None)
    except Exception as error:  # Keras raises plain Exceptions where a download fails
        raise DownloadError(
            f"The weights of keras:{name} could not be had: {first_line(error)}",
            "Where there is no network, copy Keras's .h5 file of this network to this machine and take "
            "--set model.pretrained_file=FILE; or start from random weights: --set model.pretrained=false.",
        ) from None


def _misfit(what: str, name: str, why: str) -> RecipeError:
    return RecipeError(
        f"{what} does not hold weights of {name}: {why.rstrip('.')}.",
        "Take the .h5 file that Keras has for this network, or a network that the file is of.",
    )
