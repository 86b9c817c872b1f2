"""Networks of keras.applications in the engines on Keras: small ones, at small sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold import networks, training
from tenfold import recipe as recipes
from tenfold.architecture import weights
from tenfold.architecture.layers import Architecture
from tenfold.bundle import store
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.engines import base
from tenfold.engines.base import Job
from tenfold.errors import BundleError, DownloadError, RecipeError, UnknownNameError
from tenfold.recipe import Model, Recipe

SMALL = "keras:MobileNetV2"


def tuned(**changes: Any) -> Recipe:
    small = {"model": {"name": SMALL}, "data.size": 32, "epochs": 2, "batch_size": 32, "precision": "fp32"}
    return recipes.override(
        recipes.load("finetune"), {**small, **{k.replace("__", "."): v for k, v in changes.items()}}
    )


def network(engine: base.Engine, name: str = SMALL, size: int = 32, classes: int = 4, **more: Any) -> Architecture:
    return networks.build(engine, Model(name=name, **more), size, size, classes)


def first(engine: base.Engine, architecture: Architecture, seed: int = 0, **more: Any) -> Any:
    return engine.library("keras").first_weights(architecture, Model(name=architecture.name, **more), seed)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_its_architecture_is_plain_data(keras_engine: base.Engine) -> None:
    architecture = network(keras_engine)
    assert architecture.external is not None and architecture.external.head == ("predictions",)
    found = {n.partition(".")[2]: (s.shape, s.role) for n, s in weights.specs(architecture).items()}
    assert found["Conv1.kernel"] == ((32, 3, 3, 3), "trained")
    assert found["bn_Conv1.moving_mean"] == ((32,), "statistic")
    assert found["predictions.kernel"] == ((4, 1280), "trained")
    assert network(keras_engine) == architecture  # whatever Keras has numbered meanwhile
    assert Architecture.from_dict(architecture.to_dict()) == architecture


def test_first_weights_come_from_the_seed_alone(keras_engine: base.Engine) -> None:
    architecture = network(keras_engine)
    found, again, other = (first(keras_engine, architecture, seed) for seed in (3, 3, 4))
    weights.check(architecture, found.weights)
    assert all(np.array_equal(w, again.weights[n]) for n, w in found.weights.items())
    name = "01_external.block_1_expand.kernel"
    assert not np.array_equal(found.weights[name], other.weights[name])
    kernel = found.weights["01_external.predictions.kernel"]  # Glorot's uniform
    limit = (6 / (1280 + 4)) ** 0.5
    assert 0.95 * limit < kernel.max() <= limit and abs(kernel.std() - limit / 3**0.5) < 0.02 * limit
    assert not found.origin


@pytest.mark.parametrize(
    "name,mean,std",
    [
        (SMALL, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("keras:ResNet50", (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
        ("keras:EfficientNetB0", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("keras:ConvNeXtTiny", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_pixels_are_normalised_as_the_family_s_weights_want(
    keras_engine: base.Engine, name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    from tenfold.engines.keras import external

    found = external._normalization(name.partition(":")[2])
    assert np.allclose(found[0], mean, atol=1e-5) and np.allclose(found[1], std, atol=1e-5)
    assert found[2] == (name == "keras:ResNet50")  # trained on BGR


def test_a_network_answers_as_keras_s_own(keras_engine: base.Engine, pictures: np.ndarray) -> None:
    """From pixels, through the family's preprocess_input, BGR and all."""
    import keras

    from tenfold.engines.keras import build, external

    architecture = network(keras_engine, "keras:ResNet50")
    given = networks._stirred(architecture, first(keras_engine, architecture).weights)
    own = external._empty("ResNet50", input_shape=(32, 32, 3), classes=4)  # with no weights drawn, which takes JAX long
    native = build.native(given)
    for name, variable in external.variables(own).items():
        value = native[name]
        variable.assign(value[:, :, ::-1] if name.endswith("conv1_conv.kernel") else value)
    wanted = own(keras.applications.resnet.preprocess_input(pictures.astype(np.float32)), training=False)
    found = keras_engine.logits(architecture, given, pictures, keras_engine.device("cpu"))
    assert np.abs(found - keras.ops.convert_to_numpy(wanted)).max() < 1e-3 * np.abs(found).max()


# one of each way to build a block; each shape takes JAX seconds to compile
FAMILIES = ["ResNet50", "EfficientNetB0", "ConvNeXtTiny", "MobileNetV3Small", "DenseNet121"]


@pytest.mark.parametrize("name", FAMILIES)
def test_its_graph_gives_the_network_s_answers(keras_engine: base.Engine, name: str, pictures: np.ndarray) -> None:
    if keras_engine.name == "jax" and name not in ("ConvNeXtTiny", "MobileNetV3Small"):
        pytest.skip("the graph is written by the same code as for tensorflow")
    architecture = network(keras_engine, f"keras:{name}")
    given = networks._stirred(architecture, first(keras_engine, architecture).weights)
    logits = keras_engine.logits(architecture, given, pictures, keras_engine.device("cpu"))
    graph = keras_engine.library("keras").graph(architecture, given)
    store.require_graph(architecture, graph, pictures, logits)
    wrong = {**given, "01_external." + architecture.external.head[0] + ".bias": np.ones(4, np.float32) * [1, 2, 3, 4]}  # type: ignore[union-attr]
    with pytest.raises(BundleError):
        store.require_graph(architecture, keras_engine.library("keras").graph(architecture, wrong), pictures, logits)


@pytest.mark.parametrize("name, size, cells", [("MobileNet", 96, 6), ("ConvNeXtTiny", 64, 2)])
def test_it_has_a_heat_map(keras_engine: base.Engine, name: str, size: int, cells: int) -> None:
    """MobileNet's of what enters its last stage, where its own would have 3×3 cells."""
    if keras_engine.name == "jax":
        pytest.skip("the graph is written by the same code as for tensorflow")
    from tenfold.explanation import Explainer
    from tenfold.export import onnx
    from tenfold.runtimes import graph, nodes, onnxruntime

    architecture = network(keras_engine, f"keras:{name}", size)
    given = networks._stirred(architecture, first(keras_engine, architecture).weights)
    data = onnx.build(
        architecture, given, classes="abcd", geometry=Geometry(size, size), temperature=1.0, name=name,
        graph=keras_engine.library("keras").graph(architecture, given),
    )  # fmt: skip
    said = graph.describe(graph.inspect(data, name), name)
    made = Explainer(data, said, where=name)
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    probabilities, found = made.contributions(picture, 1)
    assert found.shape == (cells, cells) and np.isfinite(found).all() and found.any()
    asked = onnxruntime.OnnxValues(nodes.with_outputs(data, [made._tail.logits]), where=name)(picture[None])
    np.testing.assert_allclose(probabilities, asked[graph.OUTPUT][0], atol=1e-5)
    if name == "ConvNeXtTiny":  # linear but for the norm's deviation: exact, less what the biases give
        head, bias = (given[f"01_external.{architecture.external.head[0]}.{part}"] for part in ("kernel", "bias"))  # type: ignore[union-attr]
        beta = next(v for n, v in reversed(given.items()) if n.endswith(".beta"))
        logit = asked[made._tail.logits][0, 1] - bias[1] - head[1] @ beta
        assert abs(found.sum() - logit) < 1e-3 * max(1, abs(logit))


def test_what_can_t_be_had_is_said(keras_engine: base.Engine) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean ResNet50"):
        network(keras_engine, "keras:resnet50")
    with pytest.raises(RecipeError, match=r"can't take pictures of 20×20.*data\.size=224"):
        network(keras_engine, "keras:ResNet50", 20)
    with pytest.raises(RecipeError, match=r"model\.dropout is not a setting"):
        network(keras_engine, "keras:ResNet50", dropout=0.5)
    assert network(keras_engine, "keras:MobileNetV3Small", dropout=0.5).external.dropout == 0.5  # type: ignore[union-attr]


def test_a_layer_without_an_onnx_form_is_refused_by_name(keras_engine: base.Engine) -> None:
    import keras

    from tenfold.engines.keras import graph

    pixels = keras.Input((8, 8, 3))
    odd = keras.Model(pixels, keras.layers.UnitNormalization(name="odd")(pixels))
    with pytest.raises(BundleError, match="odd: no ONNX form is known for Keras's UnitNormalization"):
        graph._Writer({}, {}).model(odd, "x")


# ---- pretrained weights ---------------------------------------------------------------------------------------------


def pretend(name: str, classes: int, **more: Any) -> Any:
    """Keras's own network with weights that stand for pretrained ones."""
    from tenfold.engines.keras import external

    model = external._empty(name, classes=classes, input_shape=(32, 32, 3), **more)
    rng = np.random.default_rng(7)
    for variable in model.weights:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    return model


def write(model: Any, path: Path, old: bool) -> Path:
    """As Keras wrote its downloads (``.h5``), or as it writes weights now."""
    if not old:
        path = path.with_suffix(".weights.h5")
        model.save_weights(path)
        return path
    import h5py
    import keras

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        held = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in held]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        for layer in held:
            group = file.create_group(layer.name)
            ordered = [*layer.trainable_weights, *layer.non_trainable_weights]
            group.attrs["weight_names"] = [v.name.encode() for v in ordered]
            for variable in ordered:
                group[variable.name] = keras.ops.convert_to_numpy(variable)
    return path.with_suffix(".h5")


@pytest.mark.parametrize(
    "classes, old",
    [(1000, True), (None, False), (4, True)],
    ids=["ImageNet as a download", "no top, as now", "own as a download"],
)
def test_pretrained_weights_come_from_a_file(
    keras_engine: base.Engine, tmp_path: Path, classes: int | None, old: bool
) -> None:
    import keras

    more: dict[str, Any] = {} if classes else {"include_top": False, "pooling": "avg"}
    model = pretend("MobileNetV2", classes or 1, **more)
    path = write(model, tmp_path / "net", old)
    architecture = network(keras_engine)
    found = first(keras_engine, architecture, pretrained_file=str(path))
    conv = keras.ops.convert_to_numpy(model.get_layer("Conv1").kernel)
    assert np.array_equal(found.weights["01_external.Conv1.kernel"], conv.transpose(3, 2, 0, 1))
    random = first(keras_engine, architecture).weights["01_external.predictions.kernel"]
    taken = classes == 4
    assert np.array_equal(found.weights["01_external.predictions.kernel"], random) != taken
    assert ("last layer is taken over" in " ".join(found.notes)) == taken
    assert found.origin["source"] == str(path) and len(found.origin["sha256"]) == 64


def test_weights_of_a_bgr_family_are_turned_to_rgb(keras_engine: base.Engine, tmp_path: Path) -> None:
    import keras

    model = pretend("ResNet50", 4)
    path = write(model, tmp_path / "net", True)
    found = first(keras_engine, network(keras_engine, "keras:ResNet50"), pretrained_file=str(path)).weights
    conv = keras.ops.convert_to_numpy(model.get_layer("conv1_conv").kernel).transpose(3, 2, 0, 1)
    assert np.array_equal(found["01_external.conv1_conv.kernel"], conv[:, ::-1])


def test_files_that_do_not_fit_are_refused(keras_engine: base.Engine, tmp_path: Path) -> None:
    import h5py

    architecture = network(keras_engine)
    other = write(pretend("MobileNet", 4), tmp_path / "other", True)
    with pytest.raises(RecipeError, match=r"other\.h5 does not hold weights of MobileNetV2"):
        first(keras_engine, architecture, pretrained_file=str(other))
    linked = tmp_path / "linked.h5"
    with h5py.File(linked, "w") as file:
        file["far"] = h5py.ExternalLink(str(other), "/")
    with pytest.raises(RecipeError, match="keeps its weights in other files"):
        first(keras_engine, architecture, pretrained_file=str(linked))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(other.read_bytes()[:2000])
    with pytest.raises(RecipeError, match="not a sound HDF5 file"):
        first(keras_engine, architecture, pretrained_file=str(cut))


def test_a_download_that_fails_says_what_to_do(keras_engine: base.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.engines.keras import external

    def failing(**settings: Any) -> None:
        raise Exception("URL fetch failure on https://nowhere: 404")

    monkeypatch.setattr(external, "_constructor", lambda name: failing)
    with pytest.raises(DownloadError, match=r"URL fetch failure.*pretrained_file=FILE"):
        external._downloaded("MobileNetV2")


# ---- training -------------------------------------------------------------------------------------------------------


def test_it_is_trained_head_first(keras_engine: base.Engine, squares: Dataset) -> None:
    recipe = tuned(finetune__frozen_epochs=1, epochs=1, augment__translate=1)
    architecture = network(keras_engine, size=32)
    given = first(keras_engine, architecture).weights
    big = _enlarged(squares)
    job = Job(architecture, recipe, given, big, keras_engine.device("cpu"))
    base.check(keras_engine, architecture, recipe, job.device)
    after = keras_engine.fit(job).weights
    moved = {n for n, w in after.items() if not np.array_equal(w, given[n])}
    assert moved == {"01_external.predictions.kernel", "01_external.predictions.bias"}


def _enlarged(squares: Dataset) -> Dataset:
    def split(of: Split) -> Split:
        return Split(np.array(of.images).repeat(2, 1).repeat(2, 2), of.labels, of.origins)

    splits = {name: split(of) for name, of in squares.splits.items()}
    return dataclasses.replace(squares, splits=splits, geometry=Geometry(32, 32))


def test_a_run_leaves_a_bundle_that_needs_no_keras(keras_engine: base.Engine, squares: Dataset, tmp_path: Path) -> None:
    changes = {"model.name": SMALL, "model.pretrained": False, "data.size": 32, "epochs": 0.5, "batch_size": 32}
    training.train(_enlarged(squares), engine=keras_engine.name, device="cpu", overrides=changes, out=tmp_path / "run")
    model = tenfold.load(tmp_path / "run")
    assert model.manifest is not None and "keras" in model.manifest.provenance["versions"]
    network = model.manifest.architecture.external
    assert network is not None and network.library == "keras"
    images, probabilities = store.open(tmp_path / "run").golden()
    assert np.abs(model.probabilities(images) - probabilities).max() < 1e-4
    assert recipes.read(tmp_path / "run" / "recipe.yaml").name == "finetune"
