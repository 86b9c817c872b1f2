"""What belongs to these engines alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tenfold import recipe as recipes
from tenfold.architecture import zoo
from tenfold.engines import base
from tenfold.errors import TrainingError, UnsupportedError
from tenfold.recipe import Recipe


def test_another_engine_of_the_same_process_is_refused(keras_engine: base.Engine) -> None:
    other = "jax" if keras_engine.name == "tensorflow" else "tensorflow"
    if base.ENGINES[other].missing():
        pytest.skip(f"needs {other} too")
    import keras  # noqa: F401

    with pytest.raises(UnsupportedError, match=f"already loaded with {keras_engine.name}"):
        base.load(other)


def test_loading_it_brings_no_other_framework(keras_engine: base.Engine) -> None:
    code = (
        f"import sys; from tenfold.engines import base; base.load({keras_engine.name!r}); "
        "from tenfold.engines.keras import stepper; print(*{'torch', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {"jax"} if keras_engine.name == "jax" else {"jax", "tensorflow"}  # TensorFlow's Keras brings JAX along
    assert keras_engine.name in out.stdout.split()
    assert set(out.stdout.split()) <= own
    assert out.stderr == ""


def test_fp16_is_refused_and_the_engine_that_has_it_named(keras_engine: base.Engine) -> None:
    recipe = recipes.override(Recipe(), {"precision": "fp16"})
    with pytest.raises(UnsupportedError, match=r"precision=fp16.*--engine torch"):
        keras_engine.check(zoo.build(recipe.model, 32, 32, 10), recipe, keras_engine.device("cpu"))


def test_the_loss_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
    import keras

    from tenfold.engines.keras.program import cross_entropy

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 4)).astype(np.float32), rng.integers(0, 4, 9)
    classes = np.array([0.5, 2.0, 1.0, 3.0], np.float32)
    for smoothing in (0.0, 0.2):
        for given in (None, classes):
            weight = None if given is None else torch.from_numpy(given)
            wanted = torch.nn.functional.cross_entropy(
                torch.from_numpy(logits), torch.from_numpy(labels), weight, label_smoothing=smoothing
            )
            args: list[Any] = [
                keras.ops.convert_to_tensor(logits),
                keras.ops.convert_to_tensor(labels.astype(np.int32)),
            ]
            weights = None if given is None else keras.ops.convert_to_tensor(given)
            assert float(cross_entropy(*args, smoothing, weights)) == pytest.approx(float(wanted), abs=1e-5)


def test_memory_that_runs_out_is_told_with_a_way_out(
    keras_engine: base.Engine, squares: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfold.architecture import weights
    from tenfold.engines.keras import program
    from tenfold.engines.keras.framework import chosen

    recipe = recipes.override(Recipe(), {"batch_size": 64, "epochs": 1, "precision": "fp32"})
    architecture = zoo.build(recipe.model, 16, 16, 4)
    first = weights.initial(architecture, 0, squares["train"].images)
    job = base.Job(architecture, recipe, first, squares, keras_engine.device("cpu"))

    def full(settings: Any) -> Any:
        def step(*arguments: Any) -> Any:
            raise _out_of_memory(chosen().name)

        return step

    monkeypatch.setattr(program, "compiled", full)
    with pytest.raises(TrainingError, match=r"64 images.*--set batch_size=32"):
        keras_engine.fit(job)


def _out_of_memory(name: str) -> Exception:
    if name == "jax":
        import jax

        return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    import tensorflow as tf

    error: Exception = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    return error
