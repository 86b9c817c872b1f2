"""timm's networks in the PyTorch engine: with timm itself where it is installed, anywhere with a stand-in for it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
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
from tenfold.data.dataset import Dataset
from tenfold.engines import base
from tenfold.engines.base import Job, Notice, Started
from tenfold.errors import BundleError, CallError, DownloadError, RecipeError, UnknownNameError, UnsupportedError
from tenfold.evaluation.calibration import softmax
from tenfold.recipe import Model, Recipe

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
pytest.importorskip("onnx", reason="needs tenfold[torch]")

HAS_TIMM = importlib.util.find_spec("timm") is not None


class Tiny(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A convolution, batch norm, a token added to each pixel, and the last layer."""

    def __init__(self, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.bn = torch.nn.BatchNorm2d(8)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 8))
        self.tied = self.token
        self.drop = torch.nn.Dropout(drop_rate)
        self.fc = torch.nn.Linear(8, num_classes)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn(self.conv(x))).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.fc(self.drop(x.mean(1)))


CONFIGURATION = types.SimpleNamespace(
    input_size=(3, 12, 12), interpolation="bicubic", crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1),
    classifier="fc", num_classes=10, fixed_input_size=False, license="cc-by-4.0", hf_hub_id="timm/tiny.v1",
)  # fmt: skip


def create_model(
    name: str, *, num_classes: int, exportable: bool, pretrained: bool = False,
    pretrained_cfg_overlay: Any = None, drop_rate: float = 0.0,
) -> Any:  # fmt: skip
    net = Tiny(num_classes, drop_rate)
    if pretrained:
        state = dict(pretrained_cfg_overlay["state_dict"])
        if num_classes != CONFIGURATION.num_classes:
            state = {n: t for n, t in state.items() if not n.startswith("fc.")}
        net.load_state_dict(state, strict=False)
    return net


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm whose one network is called tiny."""
    module: Any = types.ModuleType("timm")
    module.__spec__ = importlib.machinery.ModuleSpec("timm", None)
    module.is_model = lambda name: name == "tiny"
    module.list_models = lambda: ["tiny", "tinier"]
    module.list_pretrained = lambda pattern: ["tiny.v1", "tiny.v2"]
    module.get_pretrained_cfg = lambda name: CONFIGURATION
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)


TUNED: dict[str, Any] = {
    "model": {"name": "timm:tiny"}, "epochs": 2, "batch_size": 32, "precision": "fp32", "optimizer.lr": 0.01,
    "augment.translate": 1,
}  # fmt: skip


def tuned(**changes: Any) -> Recipe:
    return recipes.override(
        recipes.load("finetune"), {**TUNED, **{k.replace("__", "."): v for k, v in changes.items()}}
    )


def network(recipe: Recipe, classes: int = 4, size: int = 16) -> Architecture:
    return networks.build(base.load("torch"), recipe.model, size, size, classes)


def first(architecture: Architecture, model: Model | None = None, seed: int = 0) -> Any:
    return base.load("torch").library("timm").first_weights(architecture, model or Model(name="timm:tiny"), seed)


def job(recipe: Recipe, dataset: Dataset, **more: Any) -> Job:
    architecture = network(recipe)
    device = base.load("torch").device("cpu")
    return Job(architecture, recipe, first(architecture, recipe.model).weights, dataset, device, **more)


# ---- the contract ---------------------------------------------------------------------------------------------------


def test_its_architecture_is_plain_data(small: None) -> None:
    architecture = network(tuned())
    assert architecture.name == "timm:tiny"
    assert architecture.external is not None and architecture.external.head == ("fc",)
    roles = {n.partition(".")[2]: (s.shape, s.role) for n, s in weights.specs(architecture).items()}
    assert roles["bn.running_mean"] == ((8,), "statistic")
    assert roles["fc.weight"] == ((4, 8), "trained")
    # no counters, and a weight of two names by its first
    assert set(roles) == {
        "mean", "std", "token", "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
        "fc.weight", "fc.bias",
    }  # fmt: skip


def test_first_weights_come_from_the_seed_and_timm_s_own_pixels(small: None) -> None:
    architecture = network(tuned())
    before = torch.get_rng_state()
    found, again, other = first(architecture), first(architecture), first(architecture, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    weights.check(architecture, found.weights)
    assert all(np.array_equal(w, again.weights[n]) for n, w in found.weights.items())
    assert not np.array_equal(found.weights["01_external.conv.weight"], other.weights["01_external.conv.weight"])
    assert found.weights["00_normalize.mean"].tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert not found.origin


def test_logits_are_the_module_s_own(small: None, squares: Dataset) -> None:
    engine, recipe = base.load("torch"), tuned()
    architecture, images = network(recipe), squares["test"].images
    given = first(architecture).weights
    net = Tiny(4).eval()
    net.load_state_dict(
        {n.partition(".")[2]: torch.from_numpy(w) for n, w in given.items() if "external" in n}, strict=False
    )
    pixels = (images / 255 - given["00_normalize.mean"]) / given["00_normalize.std"]
    with torch.no_grad():
        wanted = net(torch.from_numpy(pixels.astype(np.float32).transpose(0, 3, 1, 2))).numpy()
    found = engine.logits(architecture, given, images, engine.device("cpu"), batch_size=7)
    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"class_weights": "balanced", "augment__cutmix": 1.0}])
def test_a_resumed_run_equals_an_unbroken_one(small: None, squares: Dataset, more: dict[str, Any]) -> None:
    engine, recipe = base.load("torch"), tuned(model__dropout=0.2, checkpoint__seconds=0, **more)
    states: list[Any] = []

    class Kept:
        def save(self, state: Any) -> None:
            states.append(state)

    whole = engine.fit(job(recipe, squares, checkpoints=Kept())).weights
    for state in (states[3], states[-3]):
        resumed = engine.fit(job(recipe, squares, resume=state)).weights
        assert all(np.array_equal(w, resumed[n]) for n, w in whole.items()), state.meta["step"]


def test_a_frozen_body_keeps_its_statistics(small: None, squares: Dataset) -> None:
    task = job(tuned(epochs=1), squares)
    found = base.load("torch").fit(task).weights
    moved = {n.partition(".")[2] for n, w in found.items() if not np.array_equal(w, task.weights[n])}
    assert moved == {"fc.weight", "fc.bias"}


# ---- the whole way --------------------------------------------------------------------------------------------------


def test_from_data_to_a_bundle(small: None, squares: Dataset, tmp_path: Path) -> None:
    heard: list[Any] = []
    result = training.train(
        squares, device="cpu", overrides={**TUNED, "model.pretrained": False, "epochs": 12}, out=tmp_path / "run",
        listen=heard.append,
    )  # fmt: skip
    assert result.test is not None and result.test.accuracy > 0.5
    said = [e.message for e in heard if isinstance(e, Notice)]
    assert any(s.startswith("All weights are random") for s in said)
    assert "All weights are random" in (tmp_path / "run" / "report.html").read_text()
    bundle = store.open(tmp_path / "run")
    assert bundle.manifest.provenance["parity"]["max_difference"] < 1e-4
    engine, images = base.load("torch"), squares["test"].images
    found = engine.logits(bundle.manifest.architecture, bundle.weights(), images, engine.device("cpu"))
    answers = tenfold.load(tmp_path / "run").probabilities(images)
    assert np.abs(answers - softmax(found, bundle.manifest.temperature)).max() < 1e-4
    assert recipes.read(tmp_path / "run" / "recipe.yaml").name == "finetune"


def test_size_and_interpolation_are_the_network_s_where_none_are_asked_for(small: None) -> None:
    engine = base.load("torch")
    made = networks.as_made_for(engine, tuned()).data
    assert (made.size, made.interpolation) == (12, "bicubic")
    asked = networks.as_made_for(engine, tuned(data__size=20, data__interpolation="bilinear")).data
    assert (asked.size, asked.interpolation) == (20, "bilinear")


@pytest.mark.parametrize("zeros", [False, True])
def test_a_graph_that_answers_otherwise_is_told_before_training(
    small: None, squares: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: bool
) -> None:
    """Also where the last layer starts with zeros, so that any graph gives the same answers at first."""
    from tenfold.engines.torch import external

    def start(self: Any, architecture: Architecture, model: Model, seed: int) -> Any:
        found = begin(self, architecture, model, seed)
        for name in ("01_external.fc.weight", "01_external.fc.bias"):
            found.weights[name] *= not zeros
        return found

    def other(self: Any, architecture: Architecture, given: Any) -> bytes:
        return write(self, architecture, {**given, "01_external.conv.weight": 2 * given["01_external.conv.weight"]})

    begin, write = external.Timm.first_weights, external.Timm.graph
    monkeypatch.setattr(external.Timm, "first_weights", start)
    monkeypatch.setattr(external.Timm, "graph", other)
    heard: list[Any] = []
    overrides = {**TUNED, "model.pretrained": False}
    with pytest.raises(
        BundleError, match="timm:tiny can't be kept as a bundle: its graph does not give the network's answers"
    ):
        training.train(squares, device="cpu", overrides=overrides, out=tmp_path / "run", listen=heard.append)
    assert not any(isinstance(e, Started) for e in heard)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"overrides": {"model.name": "timm:tinny"}}, UnknownNameError, "Did you mean tiny"),
        ({"overrides": {"model.name": "timm:tiny.v3"}}, UnknownNameError, "tiny.v"),
        ({"overrides": {"model.name": "timm:hf-hub:a/b"}}, UnknownNameError, "No network of timm"),
        ({"overrides": {"model.name": "kera:tiny"}}, UnknownNameError, "No library is called 'kera'"),
        ({"overrides": {"model.name": "keras:tiny"}}, UnsupportedError, "needs the tensorflow or jax engine"),
        ({"overrides": {"model.name": "timm:tiny"}, "recipe": "quick"}, RecipeError, "--recipe finetune"),
        ({"overrides": {"model.name": "timm:tiny", "low_res.size": 8}}, UnsupportedError, "low_res"),
        ({"overrides": {"model.name": "timm:tiny", "model.pretrained_file": "none"}}, CallError, "can't be read"),
    ],
)
def test_wrong_calls_are_told_before_anything_is_made(
    small: None, call: dict[str, Any], error: type[CallError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        training.train(**{"data": "digits", "out": tmp_path / "run", **call})
    assert says in str(caught.value)
    assert not (tmp_path / "run").exists()


# ---- pretrained -----------------------------------------------------------------------------------------------------


def saved(path: Path, drop: str = "", classes: int = 10) -> dict[str, Any]:
    from safetensors.torch import save_file

    torch.manual_seed(5)
    state = {n: t.clone() for n, t in Tiny(classes).state_dict().items() if n not in ("tied", drop)}
    save_file(state, path)
    return state


def test_pretrained_weights_from_a_file(small: None, squares: Dataset, tmp_path: Path) -> None:
    state = saved(tmp_path / "tiny.safetensors")
    model = Model(name="timm:tiny", pretrained_file=str(tmp_path / "tiny.safetensors"))
    architecture = network(tuned())
    found, random = first(architecture, model), first(architecture)
    for name, tensor in state.items():
        if name.startswith("fc.") or not tensor.is_floating_point():
            continue
        assert np.array_equal(found.weights[f"01_external.{name}"], tensor.numpy()), name
    for name in ("01_external.fc.weight", "01_external.fc.bias"):  # new, for there are four classes
        assert np.array_equal(found.weights[name], random.weights[name])
    assert found.origin["license"] == "cc-by-4.0" and len(found.origin["sha256"]) == 64
    assert "licensed cc-by-4.0" in found.notes[0] and len(found.notes) == 1
    result = training.train(
        squares, device="cpu", overrides={**TUNED, "model.pretrained_file": model.pretrained_file}, out=tmp_path / "run"
    )
    assert store.open(result.bundle).manifest.provenance["pretrained"] == found.origin


def test_as_many_classes_keep_the_last_layer(small: None, tmp_path: Path) -> None:
    state = saved(tmp_path / "tiny.safetensors")
    model = Model(name="timm:tiny", pretrained_file=str(tmp_path / "tiny.safetensors"))
    found = first(network(tuned(), classes=10), model)
    assert np.array_equal(found.weights["01_external.fc.weight"], state["fc.weight"].numpy())
    assert "taken over too" in found.notes[1]


def test_a_file_of_another_network_is_refused(small: None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "tiny.safetensors"
    model, architecture = Model(name="timm:tiny", pretrained_file=str(path)), network(tuned())
    saved(path, drop="conv.weight")
    with pytest.raises(RecipeError, match=r"does not hold weights of timm:tiny: it lacks conv\.weight"):
        first(architecture, model)
    save_file({"conv.weight": torch.zeros(9, 3, 3, 3)}, path)
    with pytest.raises(RecipeError, match="does not hold weights of timm:tiny"):
        first(architecture, model)
    saved(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecipeError, match="not a sound safetensors file"):
        first(architecture, model)


def test_without_a_network_the_error_says_how_to_get_them(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    hub: Any = types.ModuleType("huggingface_hub")
    utils: Any = types.ModuleType("huggingface_hub.utils")

    def unreachable(repository: str, file: str) -> str:
        assert (repository, file) == ("timm/tiny.v1", "model.safetensors")
        raise OSError("Name or service not known")

    hub.hf_hub_download, utils.disable_progress_bars = unreachable, lambda: None
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    with pytest.raises(DownloadError, match=r"huggingface\.co/timm/tiny\.v1: Name or service not known") as caught:
        first(network(tuned()), Model(name="timm:tiny", pretrained=True))
    assert "model.pretrained_file=FILE" in (caught.value.hint or "")


# ---- with timm itself -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_TIMM, reason="needs timm: pip install 'tenfold[timm]'")
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_timm_s_own_networks_the_whole_way(name: str, tmp_path: Path) -> None:
    tuned = {"epochs": 0.2, "finetune.frozen_epochs": 0.1, "data.size": 32}
    overrides = {**TUNED, "model": {"name": f"timm:{name}"}, **tuned}
    result = training.train("digits", device="cpu", overrides=overrides, out=tmp_path / "run")
    bundle = store.open(result.bundle)
    assert bundle.manifest.architecture.external is not None
    assert bundle.manifest.provenance["parity"]["max_difference"] < 1e-4
    assert "timm" in bundle.manifest.provenance["versions"]
    images, expected = bundle.golden()
    assert np.abs(tenfold.load(result.bundle).probabilities(images) - expected).max() < 1e-4


@pytest.mark.skipif(not HAS_TIMM, reason="needs timm: pip install 'tenfold[timm]'")
def test_timm_s_unknown_names_have_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean resnet18"):
        base.load("torch").library("timm").pixels(Model(name="timm:resnet81"))


@pytest.mark.skipif(not HAS_TIMM, reason="needs timm: pip install 'tenfold[timm]'")
def test_timm_s_weights_from_a_file(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(7)
    source = timm.create_model("test_vit", num_classes=1000)
    path = tmp_path / "model.safetensors"
    save_file(source.state_dict(), path)
    library = base.load("torch").library("timm")
    model = Model(name="timm:test_vit", pretrained_file=str(path))
    for size in (160, 96):  # at another size the positions are interpolated
        architecture = library.architecture(model, size, size, 5)
        found = library.first_weights(architecture, model, 0).weights
        kept = found["01_external.blocks.0.attn.qkv.weight"]
        assert np.array_equal(kept, source.blocks[0].attn.qkv.weight.detach().numpy())
        assert found["01_external.head.weight"].shape[0] == 5
    with pytest.raises(RecipeError, match="does not hold weights of timm:test_resnet"):
        other = Model(name="timm:test_resnet", pretrained_file=str(path))
        library.first_weights(library.architecture(other, 160, 160, 5), other, 0)


@pytest.mark.skipif(not HAS_TIMM, reason="needs timm: pip install 'tenfold[timm]'")
def test_a_size_that_a_network_can_t_take_is_told() -> None:
    library = base.load("torch").library("timm")
    with pytest.raises(CallError, match=r"can't take pictures of 16×16") as caught:
        library.architecture(Model(name="timm:test_convnext"), 16, 16, 5)
    assert "data.size=160" in (caught.value.hint or "")
