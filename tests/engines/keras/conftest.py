from __future__ import annotations

import pytest

from tenfold.engines import base


@pytest.fixture(autouse=True)
def keras_engine(request: pytest.FixtureRequest) -> base.Engine:
    """The engine of --engine, where it is one on Keras: one is loaded in a process (``make test``)."""
    name = request.config.getoption("--engine")
    if base.ENGINES[name].folder != "keras":
        pytest.skip("needs --engine tensorflow or --engine jax, in a process of its own")
    missing = base.ENGINES[name].missing()
    if missing is not None:
        pytest.skip(f"{missing} is not installed: pip install 'tenfold[{base.ENGINES[name].extra}]'")
    return base.load(name)
