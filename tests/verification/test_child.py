"""A worker ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SLEEPS = """
import os, time
with open(os.environ["WORKER"] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(os.environ["WORKER"] + ".part", os.environ["WORKER"])
time.sleep(120)
"""


def running(process: int) -> bool:
    """Whether it is there and more than a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition: Any, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the process in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_worker_too(
    bundle_folder: Path, tmp_path: Path, fake_package: Any, number: signal.Signals
) -> None:
    fake_package("openvino", SLEEPS)
    (tmp_path / "temporary").mkdir()
    worker = tmp_path / "worker"
    # a job in a script's background inherits SIGINT ignored
    asked = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = asked + "from tenfold.__main__ import main; main()"
    command = [sys.executable, "-c", start, "verify", str(bundle_folder), "--engines", "none", "--golden"]
    process = subprocess.Popen(
        [*command, "--runtimes", "openvino"],
        env={**os.environ, "WORKER": str(worker), "TMPDIR": str(tmp_path / "temporary")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert until(worker.exists)
        child = int(worker.read_text())
        assert running(child)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert until(lambda: not running(child), 10)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert said == "Error: Interrupted.\n"
        assert list((tmp_path / "temporary").iterdir()) == []
