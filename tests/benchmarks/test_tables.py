from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import plot
import pytest
import tables
import tally
from race_records import OTHER, OWN, record

PAGE = "# A page\n\nbefore\n\n<!-- bench-cpu:start -->\nold\n<!-- bench-cpu:end -->\n\nafter\n"


@pytest.fixture
def summary() -> dict[str, Any]:
    failed = record("own", 3, None, 1.0, exit_code=1, why="no space")
    found = tally.summarise([("own", "Own"), ("other", "Other")], [*OWN, failed, *OTHER], [0.93], ["other"])
    machine = {"cores": 2, "cpu": "A CPU", "virtual": True, "memory_bytes": 2**34, "gpus": [], "system": "Linux 6"}
    more = {"device": "cpu", "date": "2026-01-02T03:04:05+00:00", "commit": ["abc"], "command": "python race.py"}
    runs = [*OWN, failed, *OTHER]
    return {**found, **more, "machine": machine, "idle_machine": True, "left_out": {"keras": "not there"}, "runs": runs}


def test_the_table(summary: dict[str, Any]) -> None:
    text = tables.full(summary)
    assert "| Own | 92.00 % (90.00 to 94.00) | 12.0 s (10.0 s to 20.0 s) | 6.0 s | 7 B | 3 | 1 of 3 |" in text
    assert "| Other | 90.00 % (89.00 to 91.00), best epoch 91.50 % |" in text
    assert "| Own | Other | 10.2 times (5.0 to 14.4) | its mean, not its lowest run (91.50 %) |" in text
    assert "2 cores of A CPU, a virtual machine, 16 GiB; Linux 6. 2026-01-02." in text
    assert "Own failed 1 times, not counted above: seed 3: no space" in text
    assert "keras was left out: not there" in text
    assert "not idle" not in text
    assert "not idle" in tables.full({**summary, "idle_machine": False})


def test_pages_are_written_between_their_markers_only(summary: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    for name in ("README.md", "docs/benchmarks.md"):
        (tmp_path / name).write_text(PAGE)
    tables.write(summary, tmp_path)
    for name in ("README.md", "docs/benchmarks.md"):
        text = (tmp_path / name).read_text()
        assert text.startswith("# A page\n\nbefore\n\n<!-- bench-cpu:start -->\n")
        assert text.endswith("\n<!-- bench-cpu:end -->\n\nafter\n")
        assert "92.00 %" in text and "old" not in text and "race-cpu" not in text
    once = (tmp_path / "README.md").read_text()
    tables.write(summary, tmp_path)
    assert (tmp_path / "README.md").read_text() == once
    for kind in ("svg", "png"):
        (tmp_path / "docs" / "images" / f"race-cpu.{kind}").touch()
    tables.write(summary, tmp_path)
    assert "](docs/images/race-cpu.svg)" in (tmp_path / "README.md").read_text()
    assert "](images/race-cpu.svg)" in (tmp_path / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize("page", ["no marker", "<!-- bench-cpu:end --> <!-- bench-cpu:start -->", PAGE + PAGE])
def test_a_page_without_its_markers_is_refused_and_none_is_touched(
    page: str, summary: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs" / "benchmarks.md").write_text(page)
    with pytest.raises(ValueError, match=r"benchmarks\.md: the page needs"):
        tables.write(summary, tmp_path)
    assert (tmp_path / "README.md").read_text() == PAGE


def test_the_pages_of_this_checkout_have_their_markers() -> None:
    for name in ("README.md", "docs/benchmarks.md"):
        page = (tables.ROOT / name).read_text(encoding="utf-8")
        for device in ("cpu", "gpu"):
            assert "new" in tables.between(page, f"bench-{device}", "new")


def test_the_picture_has_a_point_for_every_run(summary: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps(summary))
    done = subprocess.run([sys.executable, plot.__file__, str(file), "--out", str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "race-cpu.svg").read_text()
    assert ">Own<" in text and ">Other<" in text
    assert [len(s) for _, s, _ in plot.points(summary)] == [3, 2]  # the failed run has no point
    assert (tmp_path / "race-cpu.png").stat().st_size < 300_000
