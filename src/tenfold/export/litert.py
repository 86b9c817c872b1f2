"""The format ``litert``: a model for LiteRT, formerly TensorFlow Lite, in float32.

What the model says of itself is the file ``tenfold.json`` in a ZIP archive at the end of model.tflite, which is how
TFLite keeps associated files: any unzip reads it.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.export.source import Source
from tenfold.runtimes.litert import METADATA

MODEL = "model.tflite"


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    (folder / MODEL).write_bytes(converted(source, None))
    return MODEL, {"weights": "float32", "activations": "float32"}


def converted(source: Source, calibration: np.ndarray | None) -> bytes:
    """The bytes of a model.tflite; quantised over what ``calibration``, uint8 N×H×W×3, makes of the network's values
    where it is given."""
    from tenfold.export import keras_model

    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as temporary:
        asset = Path(temporary) / METADATA
        asset.write_bytes(source.texts_json)
        module = keras_model.served(source.bundle, asset, constant=True)
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        data: bytes = converter.convert()
    # ZIP's places count from the start of the file, so that it is read as one
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA), source.texts_json)
    return file.getvalue()
