"""Recipe: every decision of a run as one frozen, validated value.

Read from and written to YAML; the shipped presets are the files of ``recipes/``; the command line overrides fields. An
unknown key is refused with the nearest known one. The resolved recipe is stored with the run: running it again gives
the run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from tenfold import recipe_keys
from tenfold.errors import RecipeError, UnknownNameError
from tenfold.tuning import space

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Byte = Annotated[int, Field(ge=0, le=255)]

MAX_RECIPE_BYTES = 1_000_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Part):
    """How pictures become pixels, and how splits that the source lacks are made."""

    size: Literal["auto"] | Annotated[int, Field(ge=4, le=1024)] = Field(
        "auto",
        description="height and width in pixels; auto takes the source's own size, or one fit for its pictures",
    )
    resize: Literal["squash", "crop", "pad"] = Field(
        "squash",
        description="squash changes the aspect; crop cuts the longer side; pad fills with the background",
    )
    interpolation: Literal["auto", "bilinear", "bicubic"] = Field(
        "auto", description="how pixels are made of others; auto is bilinear, or what a network of timm was made for"
    )
    background: tuple[Byte, Byte, Byte] = Field(
        (0, 0, 0), description="RGB under transparent pictures and around padded ones"
    )
    val_fraction: Literal["auto"] | Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1,
        description="share of the training images held out for validation where the source has no val split; auto is "
        "about 1,000 images, from 2 % to 10 %",
    )
    test_fraction: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.2, description="share of all images held out for testing where the source has no test split"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="seed of these splits; not changed by --seed")


class Model(_Part):
    """A network and its sizes: one of tenfold's own, or another library's as it is."""

    name: str = Field(
        "sprint",
        max_length=200,
        description="cnn, sprint or resnet18; or any of timm's or Keras's, as timm:resnet50 or keras:ResNet50",
    )
    pretrained: bool = Field(
        False, description="timm, keras: start from the weights that come with the network, all but the last layer's"
    )
    pretrained_file: str | None = Field(
        None,
        max_length=4096,
        description="those weights in a file here, instead of a download: safetensors for timm, HDF5 for Keras",
    )
    widths: tuple[Annotated[int, Field(gt=0, le=4096)], ...] | None = Field(
        None, description="filters of each stage; the network's own where null"
    )
    depth: Annotated[int, Field(ge=1, le=8)] = Field(2, description="sprint: convolutions in each stage")
    residual: bool = Field(False, description="sprint: an identity shortcut over the last convolutions of a stage")
    activation: Literal["auto", "relu", "gelu", "silu"] = Field("auto", description="auto is the network's own")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="rate of the network's dropout layers; the network's own where null"
    )
    batchnorm_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="share of the running statistics kept at each step"
    )
    head_scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on the logits; the network's own where null"
    )


class Optimizer(_Part):
    """Update rule. Muon steps the convolutions' kernels; what it leaves goes to SGD with ``lr``."""

    name: Literal["sgd", "adam", "adamw", "muon"] = Field("adam", description="the rule")
    lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="peak learning rate, for a batch mean of the loss")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="SGD, also beside Muon")
    nesterov: bool = Field(True, description="SGD and Muon")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam and AdamW")
    eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="Adam and AdamW")
    weight_decay: NonNegative = Field(
        0.0,
        description="sgd, adam: L2 added to kernels' gradients; adamw: decoupled, times the rate; muon: share by which "
        "all but its kernels shrink at each step at the peak rate",
    )
    muon_lr: Annotated[float, Field(gt=0)] = Field(0.24, description="Muon's peak rate for the kernels")
    muon_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.6, description="Muon's momentum for the kernels")
    muon_steps: Annotated[int, Field(ge=1, le=20)] = Field(3, description="Newton-Schulz iterations")
    head_lr: Annotated[float, Field(gt=0)] | None = Field(None, description="the last layer's rate; lr where null")
    bias_lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="rate of biases and batch norm; lr where null"
    )
    whiten_bias_epochs: NonNegative | None = Field(
        None,
        description="epochs after which a whitening layer's bias is no longer trained; null trains it throughout",
    )


class Schedule(_Part):
    """The learning rate's factor over the whole run, from 0 to 1 of its steps."""

    name: Literal["constant", "linear", "cosine", "onecycle", "step"] = Field(
        "constant", description="the curve; linear and cosine fall from the peak to final"
    )
    warmup: Fraction = Field(0.0, description="share of the steps in which the rate rises linearly to its peak")
    start: Fraction = Field(0.0, description="factor at the first step, where there is a warm-up")
    final: Fraction = Field(0.0, description="factor at the last step")
    milestones: tuple[Fraction, ...] = Field((0.5, 0.75), description="step: where the rate drops")
    gamma: Fraction = Field(0.1, description="step: the factor of each drop")


class Augment(_Part):
    """Changes made to each training image; geometry in pixels and degrees."""

    flip: Literal["none", "random", "alternating"] = Field(
        "none",
        description="mirror left-right: by chance, or in every second epoch (each image exactly every second time)",
    )
    translate: Annotated[int, Field(ge=0, le=64)] = Field(0, description="shift by up to this many pixels")
    translate_fill: Literal["reflect", "zero"] = Field("reflect", description="what comes in at the edge")
    rotate: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="turn by up to this many degrees")
    cutout: Annotated[int, Field(ge=0, le=512)] = Field(0, description="side of a square set to the mean")
    color_jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="brightness, contrast and saturation, each by a factor of up to 1 ± this"
    )
    mixup: NonNegative = Field(0.0, description="alpha of the Beta distribution; 0 is off")
    cutmix: NonNegative = Field(0.0, description="alpha of the Beta distribution; 0 is off")


class LowRes(_Part):
    """Train the first part of the run on smaller pictures."""

    size: Annotated[int, Field(ge=4, le=1024)] = Field(description="height and width of the smaller pictures")
    until: Fraction = Field(0.6, description="share of the steps trained at this size")


class Finetune(_Part):
    """Train the last layer first and alone, then the rest of the network with it at a lower rate."""

    frozen_epochs: NonNegative = Field(
        1.0, description="epochs in which only the last layer is trained, batch norm's statistics left as they are"
    )
    body_lr: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="factor on the rates of all but the last layer, from then on"
    )


class Log(_Part):
    tensorboard: bool = Field(False, description="write TensorBoard event files into the run folder")


class Checkpoint(_Part):
    seconds: NonNegative = Field(15.0, description="time between checkpoints; one is also written at each epoch's end")


class Evaluate(_Part):
    tta: Literal["none", "flip", "flip+shift"] = Field(
        "none",
        description="test-time augmentation: the test accuracy with it is told beside the plain network's",
    )


class Recipe(_Part):
    """All of a run's decisions. See docs/recipes.md."""

    name: str = Field(
        "custom",
        max_length=80,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="letters, digits, dot, dash and underscore; part of the run folder's name",
    )
    description: str = Field("", max_length=2000, description="what the recipe is for, in a sentence or two")
    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    epochs: Annotated[float, Field(gt=0, le=100_000)] = Field(
        10.0, description="passes over the training images; a part of one is allowed"
    )
    min_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="more epochs are run until this many steps are done; for small datasets"
    )
    batch_size: Positive = Field(128, description="images in a step")
    virtual_batch_size: Positive | None = Field(
        None,
        description="images that batch norm takes its statistics over in training, a part of the batch (ghost batch "
        "norm); a CPU computes each part on a core of its own. null is the whole batch",
    )
    sync_batch_norm: bool = Field(
        True,
        description="where several processes train together, batch norm takes its statistics over the images of all, "
        "as in one process; false: each over its own. No effect where each has whole parts (virtual_batch_size)",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="of first weights, order and augmentation; the splits have their own"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="auto: bf16 where the device computes in it (CUDA from Ampere on, CPUs with AMX), fp16 on older "
        "CUDA, else fp32",
    )
    cuda_graphs: bool = Field(
        True,
        description="on CUDA, capture a step as a graph and launch it whole, which gives the same numbers in less "
        "time; no effect elsewhere",
    )
    compile: bool = Field(
        False,
        description="compile the network before the first step, to train it faster: for runs so long that the "
        "compilation is made up for; needs triton on CUDA and a C++ compiler on a CPU. No effect in engines other than "
        "torch, which always compile",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target spread evenly over all classes"
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced weighs the loss by 1/frequency")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay a step of the weights' moving average, which is what is evaluated and kept"
    )
    low_res: LowRes | None = None
    finetune: Finetune | None = None
    patience: Positive | None = Field(None, description="stop after this many epochs without a better val accuracy")
    time_limit: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds of training, schedule fitted")
    evaluate: Evaluate = Evaluate()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    tune: dict[str, space.Read] | None = Field(
        None,
        description="what tenfold tune searches: dotted fields, each with {low, high} or {choices}",
    )

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        if self.augment.mixup and self.augment.cutmix:
            raise ValueError("augment.mixup and augment.cutmix can't both be on")
        for name in self.tune or ():
            space.refuse_unsearchable(name, [field for field, _ in fields()])
        return self

    @model_serializer(mode="wrap")
    def _without_no_space(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe without a search space is written as it was before there were any."""
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if name != "tune" or value is not None}

    def to_yaml(self) -> str:
        import yaml

        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def from_mapping(data: Any, where: str = "recipe") -> Recipe:
    """The recipe in ``data``; RecipeError names the field that doesn't fit, UnknownNameError the nearest known one."""
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping of fields, not {type(data).__name__}.")
    recipe_keys.refuse_unknown(data, Recipe, where)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(p) for p in first["loc"]) or "the fields together"
        raise RecipeError(
            f"{where}: {field}: {first['msg']} (got {_short(first.get('input'))}).",
            "docs/recipes.md lists every field; tenfold recipes NAME prints a whole one.",
        ) from None


def load(name_or_path: str | Path) -> Recipe:
    """A shipped preset by its name, or a YAML file by its path."""
    name = str(name_or_path)
    if name in presets():
        return from_mapping(_parse(_preset_text(name), name), name)
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        raise UnknownNameError("recipe", name, ["auto", *presets()])
    return read(path)


def read(path: Path) -> Recipe:
    """The recipe in a YAML file, of at most 1 MB."""
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(f"{path} is larger than a recipe can be ({MAX_RECIPE_BYTES:,} bytes).")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not text in UTF-8.") from None
    return from_mapping(_parse(text, str(path)), str(path))


def presets() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("tenfold") / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def override(recipe: Recipe, changes: Mapping[str, Any], where: str = "--set") -> Recipe:
    """``recipe`` with dotted fields changed: ``{"optimizer.lr": 0.1, "augment.flip": "none"}``.

    A part that is null (``low_res``) is made by setting its fields; setting it to None removes it.
    """
    data = recipe.model_dump(mode="json")
    for key, value in changes.items():
        *parents, last = key.split(".")
        part: Any = data
        recipe_keys.refuse_unknown_path(key, Recipe, where)
        for parent in parents:
            if part[parent] is None:
                part[parent] = {}
            part = part[parent]
        part[last] = value
    return from_mapping(data, where)


def parse_set(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` as given to --set; the value is read as YAML (``true``, ``0.1``, ``[64, 128]``, ``null``)."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise RecipeError(f"--set {text!r}: expected KEY=VALUE, for example --set optimizer.lr=0.1")
    return key.strip(), _parse(value, f"--set {key}")


def fields() -> Iterator[tuple[str, Any]]:
    """(dotted name, Pydantic's field) of every recipe field, in order."""
    yield from recipe_keys.walk(Recipe)


def _preset_text(name: str) -> str:
    return (resources.files("tenfold") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _parse(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise RecipeError(f"{where}: not YAML" + (f" (line {line + 1})." if line is not None else ".")) from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
