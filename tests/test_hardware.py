from __future__ import annotations

import subprocess
import sys
import time

from tenfold import hardware


def test_peak_memory_is_this_process_own_and_not_its_parents() -> None:
    big = b"x" * 400_000_000
    code = "from tenfold import hardware; print(hardware.peak_memory_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(big) < hardware.peak_memory_bytes()
    assert 0 < int(child.stdout) < 200_000_000


def test_the_process_was_started_before_now() -> None:
    assert 0 <= time.time() - hardware.process_started() < 24 * 3600


def test_versions_are_told_without_importing() -> None:
    code = (
        "import sys; from tenfold import hardware; v = hardware.versions('torch', 'nowhere'); "
        "print('torch' in sys.modules, 'nowhere' in v, 'python' in v)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["False", "False", "True"]
