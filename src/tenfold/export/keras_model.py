"""The network as TensorFlow computes it: what ``saved_model`` and ``litert`` write. Built by the engine tensorflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.bundle.store import Bundle
from tenfold.engines import base
from tenfold.recipe import Recipe
from tenfold.runtimes.graph import INPUT, OUTPUT


def served(bundle: Bundle, metadata: Path, *, constant: bool = False) -> Any:
    """A tf.Module whose ``__call__`` takes ``pixels``, uint8 N×H×W×3, and gives ``{"probabilities": float32
    N×classes}``; ``metadata`` is a file that goes into a SavedModel's assets. ``constant``: weights are
    constants of its graph, not variables.

    Raises UnsupportedError for a network that the engine hasn't got.
    """
    engine = base.load("tensorflow")
    import tensorflow as tf

    from tenfold.engines.keras import build, framework

    manifest = bundle.manifest
    architecture = manifest.architecture
    device = engine.device("cpu")
    base.check(engine, architecture, Recipe(precision="fp32"), device)
    framework.chosen().prepare(device, "fp32")
    net = build.build(architecture)
    weights = build.native(bundle.weights())
    for name, variable in net.variables.items():
        variable.assign(weights[name])
    constants = {name: tf.constant(value) for name, value in weights.items()} if constant else {}

    class Served(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            if not constant:
                self.network = net.model
            self.metadata = tf.saved_model.Asset(str(metadata))

        @tf.function(
            input_signature=[tf.TensorSpec([None, architecture.height, architecture.width, 3], tf.uint8, name=INPUT)],
            autograph=False,
        )
        def __call__(self, pixels: Any) -> dict[str, Any]:
            wide = tf.cast(pixels, tf.float32)
            logits = net.forward(constants, wide)[0] if constant else self.network(wide, training=False)
            return {OUTPUT: tf.nn.softmax(tf.cast(logits, tf.float32) / manifest.temperature)}

    return Served()
