from __future__ import annotations

import subprocess
import sys

import pytest

import tenfold


def test_all_is_what_is_public_and_each_name_is_there() -> None:
    assert sorted(tenfold.__all__) == sorted(["__version__", *tenfold._HOME])
    for name in tenfold.__all__:
        assert getattr(tenfold, name) is not None
    assert (
        callable(tenfold.train) and callable(tenfold.evaluate) and callable(tenfold.verify)
    )  # no submodule hides the function
    with pytest.raises(AttributeError, match="trian"):
        tenfold.trian  # noqa: B018


def test_importing_tenfold_imports_no_framework_and_little_else() -> None:
    code = "import sys, tenfold; print(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "tensorflow", "keras", "jax", "numpy", "pydantic", "rich", "matplotlib", "onnxruntime", "PIL"}
    assert not heavy & set(done.stdout.split())
