"""The format ``litert``: a model for LiteRT, formerly TensorFlow Lite, in float32.

What the model says of itself is the file ``tenfold.json`` in a ZIP archive at the end of model.tflite, which is how
TFLite keeps associated files: any unzip reads it.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenfold.export.source import Source
from tenfold.runtimes.litert import METADATA

MODEL = "model.tflite"


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    model = write_model(source, folder, lambda converter: converter().convert())
    return model, {"weights": "float32", "activations": "float32"}


def write_model(source: Source, folder: Path, convert: Callable[[Callable[[], Any]], bytes]) -> str:
    """Write what ``convert`` makes of a new converter for the network, each time one is asked for; the file's name."""
    from tenfold.export import keras_model

    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as temporary:
        asset = Path(temporary) / METADATA
        asset.write_bytes(source.texts_json)
        module = keras_model.served(source.bundle, asset, constant=True)
        import tensorflow as tf

        function = module.__call__.get_concrete_function()
        data = convert(lambda: tf.lite.TFLiteConverter.from_concrete_functions([function], module))
    # ZIP's places count from the start of the file, so that it is read as one
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA), source.texts_json)
    (folder / MODEL).write_bytes(file.getvalue())
    return MODEL
