"""digits: scikit-learn's 1,797 scans of handwritten digits, shipped with the package.

Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (CC BY
4.0); the test part, as ``sklearn.datasets.load_digits`` has it. ``digits.bin.z`` holds 1,797 labels and then
1,797×8×8 values from 0 to 16, one byte each, compressed with zlib.
"""

from __future__ import annotations

import zlib
from importlib import resources

import numpy as np

N = 1797
SIDE = 8
# 8×8 is too small for networks that halve the picture three times.
AUTO_SIZE = 16


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The scans as uint8 1797×8×8×3 (gray from 0 to 255 in all three channels), and int64 labels."""
    packed = (resources.files("tenfold.data") / "digits.bin.z").read_bytes()
    values = np.frombuffer(zlib.decompress(packed), np.uint8)
    labels = values[:N].astype(np.int64)
    gray = np.rint(values[N:].reshape(N, SIDE, SIDE, 1) * np.float32(255 / 16)).astype(np.uint8)
    return np.repeat(gray, 3, axis=3), labels
