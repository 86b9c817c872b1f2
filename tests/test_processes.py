from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tenfold import processes


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; b = bytearray(150_000_000); time.sleep(2)'])\n"
        "b = bytearray(150_000_000); child.wait()"
    )
    ballast = b"x" * 300_000_000  # of the process that measures: none of it is the program's
    cost = processes.run(
        [sys.executable, "-c", code], stdout=tmp_path / "o", stderr=tmp_path / "e", cwd=tmp_path, env=dict(os.environ)
    )
    assert len(ballast) == 300_000_000
    assert cost.exit_code == 0 and 2 < cost.seconds < 15
    assert cost.tree_bytes is not None and 300e6 < cost.tree_bytes < 450e6
    assert 150e6 < cost.process_bytes < 250e6  # the larger of the two, not their sum


def test_a_signal_is_a_negative_exit_code(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    cost = processes.run(
        [sys.executable, "-c", code], stdout=tmp_path / "o", stderr=tmp_path / "e", cwd=tmp_path, env=dict(os.environ)
    )
    assert cost.exit_code == -9


def test_stolen_time_counts_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([processes.Ticks(100, 100, 0), processes.Ticks(110, 180, 10)])
    monkeypatch.setattr(processes, "ticks", lambda: next(seen))
    assert processes.busy_share(0) == pytest.approx(0.2)
