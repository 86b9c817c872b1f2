"""An architecture as a Keras model, beside plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfold.engines import base


def test_a_network_of_every_layer_answers_as_in_float64(
    keras_engine: base.Engine, tiny_network: Any, reference_logits: Any
) -> None:
    architecture, weights = tiny_network()
    images = np.random.default_rng(3).integers(0, 256, (11, 8, 8, 3), np.uint8)
    found = keras_engine.logits(architecture, weights, images, keras_engine.device("cpu"), batch_size=4)
    assert np.abs(found - reference_logits(architecture, weights, images)).max() < 1e-4


def test_canonical_weights_survive_the_way_there_and_back(tiny_network: Any) -> None:
    from tenfold.engines.keras import build

    architecture, weights = tiny_network()
    native = build.native(weights)
    assert native["01_conv.kernel"].shape == (2, 2, 3, 4)
    assert {n: v.shape for n, v in build.build(architecture).variables.items()} == {
        n: a.shape for n, a in native.items()
    }
    back = build.canonical(native)
    assert all(np.array_equal(back[n], weights[n]) for n in weights)


@pytest.mark.parametrize("parts", [1, 4, 3], ids=["whole", "equal", "unequal"])
def test_batch_norm_takes_statistics_over_parts(parts: int) -> None:
    """The parts are torch.tensor_split's, the running variance is unbiased, and both are averaged over the parts."""
    import keras

    from tenfold.engines.keras.layers import BatchNorm

    layer = BatchNorm(0.9, 1e-5, True, True, parts, dtype="float32")
    layer.build((None, 5, 5, 3))
    x = np.random.default_rng(0).normal(2, 3, (8, 5, 5, 3)).astype(np.float32)
    found = keras.ops.convert_to_numpy(layer(x, training=True))
    split = np.array_split(x.astype(np.float64), parts)
    wanted = [(p - p.mean((0, 1, 2))) / np.sqrt(p.var((0, 1, 2)) + 1e-5) for p in split]
    assert np.abs(found - np.concatenate(wanted)).max() < 1e-4
    mean = np.mean([p.mean((0, 1, 2)) for p in split], 0)
    variance = np.mean([p.var((0, 1, 2), ddof=1) for p in split], 0)
    assert np.allclose(keras.ops.convert_to_numpy(layer.mean), 0.1 * mean, atol=1e-5)
    assert np.allclose(keras.ops.convert_to_numpy(layer.variance), 0.9 + 0.1 * variance, atol=1e-4)


@pytest.mark.parametrize("padding,channels", [(1, 12), (0, 12), (1, 3), (0, 3)])
def test_a_convolution_of_its_own_has_xlas_gradients(keras_engine: base.Engine, padding: int, channels: int) -> None:
    if keras_engine.name != "jax":
        pytest.skip("only JAX has one")
    import jax

    from tenfold.engines.keras.cpu_conv import cpu_conv

    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((4, 9, 7, channels), (3, 3, channels, 5)))

    def plain(x: Any, kernel: Any) -> Any:
        around = [(padding, padding)] * 2
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def total(conv: Any) -> Any:
        return jax.grad(lambda x, kernel: (jax.numpy.sin(conv(x, kernel)) ** 2).sum(), argnums=(0, 1))(x, kernel)

    assert np.abs(cpu_conv(x, kernel, padding) - plain(x, kernel)).max() < 1e-4
    for own, wanted in zip(total(lambda x, k: cpu_conv(x, k, padding)), total(plain), strict=True):
        assert np.abs(own - wanted).max() < 1e-3
