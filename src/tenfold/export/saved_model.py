"""The format ``saved-model``: TensorFlow's SavedModel, with the signature ``serving_default``.

What the model says of itself is the asset ``tenfold.json``. TensorFlow Serving takes the folder as a version:
``MODEL_BASE_PATH/NAME/1``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tenfold.export.source import Source
from tenfold.runtimes.savedmodel import METADATA, SIGNATURE


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the SavedModel into ``folder``; what is opened, and what to say of how it was made."""
    from tenfold.export import keras_model

    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as temporary:
        asset = Path(temporary) / METADATA
        asset.write_bytes(source.texts_json)
        module = keras_model.served(source.bundle, asset)
        import tensorflow as tf

        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.__call__})
    return ".", {"signature": SIGNATURE}
