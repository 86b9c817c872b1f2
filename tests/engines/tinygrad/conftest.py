from __future__ import annotations

import pytest

from tenfold.engines.base import Device
from tenfold.errors import UnsupportedError


@pytest.fixture
def cpu(request: pytest.FixtureRequest) -> Device:
    """The processor as the opencl engine's device, in the run of this engine only: one is loaded in a process."""
    pytest.importorskip("tinygrad")
    if request.config.getoption("--engine") != "opencl":
        pytest.skip("computes with tinygrad: runs with --engine opencl")
    from tenfold.engines.tinygrad import devices

    try:
        return devices.find("cpu")
    except UnsupportedError as error:
        pytest.skip(str(error))
