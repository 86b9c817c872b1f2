"""The format ``litert-int8``: as ``litert``, with convolutions and products in 8 bits, statically quantised by
TensorFlow's converter: kernels by output channel, activations by tensor, over the ranges that they have for training
images.

In float32 stay what comes before the second convolution, and the last layer with temperature and softmax: in 8 bits
probabilities would be steps of 1/256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export import litert
from tenfold.export.source import Source

_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")
_ACTIVATIONS = ("GELU", "RELU", "RELU6", "LOGISTIC", "HARD_SWISH")


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    images = source.calibration
    assert images is not None
    kept: list[str] = []

    def convert(converter: Any) -> bytes:
        import tensorflow as tf

        kept.extend(_ends(converter().convert()))
        quantising = converter()
        quantising.optimizations = [tf.lite.Optimize.DEFAULT]
        quantising.representative_dataset = lambda: ([image[None]] for image in images)
        # the one way to leave single operators out; a debugger of the quantised model comes with it
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=quantising, debug_dataset=lambda: ([image[None]] for image in images[:1]), debug_options=options
        )
        data: bytes = debugger.get_nondebug_quantized_model()
        return data

    model = litert.write_model(source, folder, convert)
    said = {"weights": "int8, by channel", "activations": "int8, by tensor", "float32": len(kept)}
    return model, {**said, "calibration": {"method": "minmax", "images": len(images)}}


def _ends(model: bytes) -> list[str]:
    """The operators before the second product of a float32 model, and those from the last on, by the names of their
    outputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    operators = [(o["op_name"], names[o["outputs"][0]]) for o in interpreter._get_ops_details()]
    operators = [pair for pair in operators if pair[0] != "DELEGATE"]
    products = [at for at, (kind, _) in enumerate(operators) if kind in _PRODUCTS]
    if not products:
        return [name for _, name in operators]
    after = products[0] + 1
    while after < products[-1] and operators[after][0] in _ACTIVATIONS:
        after += 1
    return [name for _, name in (*operators[:after], *operators[products[-1] :])]
