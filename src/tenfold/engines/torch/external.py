"""Networks of timm (R. Wightman, PyTorch Image Models). The only importer of timm and of PyTorch's ONNX exporter.

Every model that timm makes by its name and that gives one tensor of logits. Its configuration tells size, mean,
deviation and license; weights come from huggingface.co or from a file, only ever as safetensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.architecture.weights import layer_name, specs
from tenfold.engines import external
from tenfold.engines.external import First, Pixels, native
from tenfold.errors import BundleError, DownloadError, RecipeError, UnknownNameError, UnsupportedError
from tenfold.recipe import Model
from tenfold.runtimes.batches import first_line
from tenfold.runtimes.graph import INPUT

OPSET = 17


class Timm(external.Library):
    name = "timm"

    def pixels(self, model: Model) -> Pixels:
        cfg = _configuration(model.name)
        return Pixels(cfg.input_size[-1], cfg.interpolation, cfg.crop_pct)

    def architecture(self, model: Model, height: int, width: int, classes: int) -> Architecture:
        cfg = _configuration(model.name)
        layer = External("timm", native(model.name), classes, model.dropout or 0.0)
        net = module(layer, height, width)
        _require_answer(net, model.name, height, width, classes, cfg)
        heads = (cfg.classifier,) if isinstance(cfg.classifier, str) else tuple(cfg.classifier or ())
        weights = tuple((name, tuple(tensor.shape), role) for name, tensor, role in _tensors(net))
        layer = External(layer.library, layer.name, classes, layer.dropout, heads, weights)
        made = Architecture(model.name, height, width, classes, (Normalize(), layer))
        try:  # bounds as a reader of the manifest will have them
            return Architecture.from_dict(made.to_dict())
        except BundleError as error:
            raise UnsupportedError(f"{model.name} can't be described: {error.message}") from None

    def first_weights(self, architecture: Architecture, model: Model, seed: int) -> First:
        layer = architecture.external
        assert layer is not None
        net = module(layer, architecture.height, architecture.width, seed)
        origin: dict[str, Any] = {}
        notes: tuple[str, ...] = ()
        if model.pretrained or model.pretrained_file is not None:
            net, origin, notes = _pretrained(architecture, model, seed, net)
        cfg = _configuration(model.name)
        named = {"mean": cfg.mean, "std": cfg.std}
        found = {name: tensor for name, tensor, _ in _tensors(net)}
        out = {}
        for name in specs(architecture):
            home, _, part = name.partition(".")
            if home == layer_name(0, Normalize()):
                out[name] = np.array(named[part], np.float32)
            else:
                out[name] = np.array(found[part].detach().float().numpy(), np.float32, order="C")
        return First(out, origin, notes)

    def graph(self, architecture: Architecture, weights: Mapping[str, np.ndarray]) -> bytes:
        from tenfold.engines.torch import build

        net = build.build(architecture)
        build.load_weights(net, architecture, weights)
        pixels = torch.zeros(2, architecture.height, architecture.width, 3, dtype=torch.uint8)
        written = io.BytesIO()
        each = {0: "N"}
        try:
            with _quiet():
                torch.onnx.export(
                    net.eval(), (pixels,), written, input_names=[INPUT], output_names=["logits"], dynamo=False,  # type: ignore[arg-type]
                    opset_version=OPSET, dynamic_axes={INPUT: each, "logits": each},
                )  # fmt: skip
        except Exception as error:  # the exporter and the network may throw anything
            raise BundleError(
                f"PyTorch can't write {architecture.name} at {architecture.height}×{architecture.width} as an ONNX "
                f"graph: {first_line(error)}"
            ) from error
        return written.getvalue()


def module(layer: External, height: int, width: int, seed: int = 0) -> nn.Module:
    """timm's module of an external architecture, its values drawn from ``seed``. PyTorch's own generator is left as
    it was."""
    return _create(layer, height, width, seed)


def _create(layer: External, height: int, width: int, seed: int, **settings: Any) -> nn.Module:
    import timm

    cfg = _configuration(f"timm:{layer.name}")
    if layer.dropout:
        settings["drop_rate"] = layer.dropout
    if cfg.fixed_input_size:
        settings["img_size"] = (height, width)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.default_generator.manual_seed(seed)
        try:
            net: nn.Module = timm.create_model(layer.name, num_classes=layer.units, exportable=True, **settings)
        except (TypeError, AssertionError, ValueError) as error:
            raise RecipeError(
                f"timm can't make {layer.name} for {height}×{width} pixels: {first_line(error)}",
                f"It was made for {cfg.input_size[-1]}: --set data.size={cfg.input_size[-1]}.",
            ) from None
    return net


def _require_answer(net: nn.Module, name: str, height: int, width: int, classes: int, cfg: Any) -> None:
    """Refuses a size at which the network fails, and one that gives anything but logits, before data is read."""
    try:
        with torch.no_grad():
            found = net.eval()(torch.zeros(1, 3, height, width))
    except Exception as error:  # a network may throw anything
        raise RecipeError(
            f"{name} can't take pictures of {height}×{width}: {first_line(error)}",
            f"It was made for {cfg.input_size[-1]}: --set data.size={cfg.input_size[-1]}.",
        ) from None
    if not isinstance(found, Tensor) or found.shape != (1, classes):
        raise UnsupportedError(f"{name} does not give a number for each class.", "Take another network.")


def _configuration(name: str) -> Any:
    """timm's configuration of a network. UnknownNameError, with the nearest, where there is none of that name."""
    import timm

    name = native(name)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UnknownNameError("network of timm", name, timm.list_models())
    if tag:
        tags = [full for full in timm.list_pretrained(f"{base}.*") if full.partition(".")[0] == base]
        if name not in tags:
            raise UnknownNameError("network of timm", name, tags)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or cfg.input_size[0] != 3 or len(cfg.mean) != 3 or len(cfg.std) != 3:
        raise UnsupportedError(f"timm:{name} does not say how it takes pictures of three colours.")
    return cfg


def _tensors(net: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """(name, tensor, role) of every float tensor of a module's state; one that has two names by its first."""
    for name, parameter in net.named_parameters():
        yield name, parameter, "trained" if parameter.requires_grad else "frozen"
    kept = net.state_dict().keys()
    for name, buffer in net.named_buffers():
        if name in kept and buffer.is_floating_point():
            yield name, buffer, "statistic"


# ---- pretrained weights ---------------------------------------------------------------------------------------------


def _pretrained(
    architecture: Architecture, model: Model, seed: int, random: nn.Module
) -> tuple[nn.Module, dict[str, Any], tuple[str, ...]]:
    """The module with pretrained weights, where they are from, and what is to be told of them."""
    cfg = _configuration(model.name)
    path = Path(model.pretrained_file) if model.pretrained_file is not None else _download(model.name, cfg)
    layer = architecture.external
    assert layer is not None
    try:
        net = _create(
            layer, architecture.height, architecture.width, seed, pretrained=True,
            pretrained_cfg_overlay={"state_dict": _read(path), "source": "", "file": None, "custom_load": False},
        )  # fmt: skip
    except (RuntimeError, KeyError, IndexError, AttributeError) as error:
        raise _misfit(path, model.name, first_line(error)) from None
    _require_loaded(net, random, layer, path, model.name)
    source = cfg.hf_hub_id if model.pretrained_file is None else str(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"network": model.name, "source": source, "sha256": digest, "license": cfg.license}
    licensed = f"licensed {cfg.license}" if cfg.license else "for which timm names no license"
    notes = [f"Starts from the weights of {source}, {licensed}."]
    if layer.units == cfg.num_classes:
        notes.append(f"Their last layer is taken over too, for it has {layer.units} classes as your data.")
    return net, origin, tuple(notes)


def _require_loaded(net: nn.Module, random: nn.Module, layer: External, path: Path, name: str) -> None:
    """timm takes what fits and only logs the rest: a matrix still as the seed drew it was not in the file."""
    drawn = {n: tensor for n, tensor, _ in _tensors(random)}
    for n, tensor, role in _tensors(net):
        if role == "statistic" or tensor.ndim < 2 or any(n.startswith(f"{head}.") for head in layer.head):
            continue
        if torch.equal(tensor, drawn[n]) and tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any()):
            raise _misfit(path, name, f"it lacks {n}.")


def _misfit(path: Path, name: str, why: str) -> RecipeError:
    return RecipeError(
        f"{path} does not hold weights of {name}: {why}",
        "Take the model.safetensors of that network's page on huggingface.co, or a network that the file is of.",
    )


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    external.check_file(path, "timm")
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"{path} is not a sound safetensors file: {first_line(error)}") from None
    return found


def _download(name: str, cfg: Any) -> Path:
    """The network's model.safetensors from huggingface.co, or from its cache here."""
    how = (
        "Where there is no network, copy that page's model.safetensors to this machine and take "
        "--set model.pretrained_file=FILE; or start from random weights: --set model.pretrained=false."
    )
    if not cfg.hf_hub_id:
        raise DownloadError(f"timm tells of no pretrained weights for {name}.", "Take --set model.pretrained=false.")
    try:
        with _quiet():
            from huggingface_hub import hf_hub_download
            from huggingface_hub.utils import disable_progress_bars

            disable_progress_bars()
            return Path(hf_hub_download(cfg.hf_hub_id, "model.safetensors"))
    except Exception as error:  # no network, no such file, a full disk: huggingface_hub's errors share no base class
        raise DownloadError(
            f"The weights of {name} could not be had from huggingface.co/{cfg.hf_hub_id}: {first_line(error)}", how
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """timm and the exporter log and warn of what is nobody's to act on; what goes wrong raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
