"""Networks of other libraries: what an engine that reaches one must be able to tell and to do.

A recipe names such a network ``library:name`` (``timm:resnet18``). Its architecture is (Normalize, External): names,
shapes and roles of all its weights as plain data, so that nothing but the engine needs the library. The engine gives
the first weights, which NumPy can't make, and writes the ONNX graph, which only the library's framework knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tenfold.architecture import zoo
from tenfold.architecture.layers import Architecture
from tenfold.bundle.tensors import other_kind
from tenfold.data.dataset import Interpolation
from tenfold.errors import CallError, RecipeError, UnknownNameError, UnsupportedError
from tenfold.recipe import Model, Recipe


@dataclass(frozen=True)
class Pixels:
    """What a network was made for, as its library tells it.

    size            height and width in pixels
    interpolation   how its pretrained weights' pictures were resized: ``bicubic``, ``bilinear`` …
    crop            share of a picture's side, about the centre, that they were tested on
    """

    size: int
    interpolation: str = "bilinear"
    crop: float = 1.0

    def differs(self) -> str | None:
        """What differs from tenfold's way from a picture to pixels, in words."""
        found = []
        if self.interpolation not in get_args(Interpolation):
            found.append(f"resized by {self.interpolation} interpolation (here: bilinear)")
        if self.crop != 1:
            found.append(f"cut to the middle {100 * self.crop:g} % (here: whole)")
        return " and ".join(found) or None


@dataclass(frozen=True)
class First:
    """First weights, float32 by canonical name, and where they come from.

    origin   plain JSON for a bundle's provenance: source, license, sha256; empty where they are random
    notes    sentences the user must be told
    """

    weights: dict[str, np.ndarray]
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Library(ABC):
    """Another package's networks, as one engine reaches them."""

    name: str

    @abstractmethod
    def pixels(self, model: Model) -> Pixels:
        """What ``model.name`` was made for. UnknownNameError, with the nearest known ones, where it is not the
        library's."""

    @abstractmethod
    def architecture(self, model: Model, height: int, width: int, classes: int) -> Architecture:
        """The network for pixels of ``height`` × ``width`` and ``classes`` logits. RecipeError where it can't have
        them."""

    @abstractmethod
    def first_weights(self, architecture: Architecture, model: Model, seed: int) -> First:
        """First weights: pretrained where ``model`` asks for them, the last layer's and all others from ``seed``.
        DownloadError where they can't be had, RecipeError where a file does not fit the network."""

    @abstractmethod
    def graph(self, architecture: Architecture, weights: Mapping[str, np.ndarray]) -> bytes:
        """The network with its weights as ONNX: ``pixels`` uint8 N×H×W×3 to logits float32 N×classes, any N."""


def library(name: str) -> str | None:
    """The library in a network's name, None for one of tenfold's own."""
    found, colon, _ = name.partition(":")
    return found if colon else None


def native(name: str) -> str:
    """A network's name without the library."""
    return name.partition(":")[2]


def check(recipe: Recipe, engine: str, libraries: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses what no engine can do with another library's network; ``libraries`` are those of each engine by name."""
    model = recipe.model
    found = library(model.name)
    if found is None:
        return
    if found not in libraries[engine]:
        having = [name for name, theirs in libraries.items() if found in theirs]
        if not having:
            known = sorted({name for theirs in libraries.values() for name in theirs})
            raise UnknownNameError("library", found, known, where=f" (model.name={model.name})")
        raise UnsupportedError(
            f"model.name={model.name} needs the {' or '.join(having)} engine, not {engine}.",
            f"Take --engine {having[0]}, or one of tenfold's own networks: {', '.join(zoo.NETWORKS)}.",
        )
    for name in ("widths", "depth", "residual", "activation", "head_scale", "batchnorm_momentum"):
        if getattr(model, name) != Model.model_fields[name].default:
            raise RecipeError(
                f"model.{name} is not a setting of the network {model.name}.",
                "Take a recipe without it: --recipe finetune.",
            )
    if recipe.optimizer.name == "muon":
        raise UnsupportedError(
            f"optimizer.name=muon is for tenfold's own networks, not {model.name}.",
            "Take sgd, adam or adamw, or a recipe that does: --recipe finetune.",
        )
    if recipe.virtual_batch_size is not None:
        raise UnsupportedError(
            f"virtual_batch_size can't be had with {model.name}: its batch norms are its library's.",
            "Take --set virtual_batch_size=null.",
        )
    if model.pretrained_file is not None:
        check_file(Path(model.pretrained_file), found)


def check_file(path: Path, library: str) -> None:
    """Refuses what is no file of weights of ``library``'s, before any data is read: safetensors for timm, HDF5 (which
    is data as well and runs nothing) for Keras."""
    keras = library == "keras"
    form = "HDF5" if keras else "safetensors"
    example = "resnet50.h5" if keras else "model.safetensors"
    hint = f"model.pretrained_file is a file of weights in the {form} format, e.g. {example}."
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CallError(f"{path} can't be read: {error.strerror}.", hint) from None
    if not (start.startswith(b"\x89HDF\r\n\x1a\n") if keras else start[4:9] == b"\0\0\0\0{"):
        kind = other_kind(start)
        raise CallError(
            f"{path} is not {'an' if keras else 'a'} {form} file{f' but {kind}' if kind else ''}.",
            f"It was not loaded{': such a file can run code' if kind else ''}. {hint}",
        )
