from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "6400000 100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu.max": "many\n"}, 16),
        ({}, 16),
    ],
)
def test_a_container_has_the_cores_it_is_given_the_time_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert hardware.cores() == cores
