from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tenfold import run as runs
from tenfold.engines.base import State
from tenfold.errors import RunError, RunExistsError, UnknownNameError
from tenfold.recipe import Recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with runs.create(tmp_path / "r", "data", Recipe(), {"data": "digits"}):
        pass
    return tmp_path / "r"


def test_folders_are_numbered_and_none_is_taken_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENFOLD_RUNS", str(tmp_path))
    names = []
    for _ in range(3):
        with runs.create(None, "my data/x", Recipe(name="quick"), {}) as run:
            names.append(run.path.name)
    (tmp_path / "my-data-x-quick-7").mkdir()
    with runs.create(None, "my data/x", Recipe(name="quick"), {}) as run:
        names.append(run.path.name)
    assert names == ["my-data-x-quick-1", "my-data-x-quick-2", "my-data-x-quick-3", "my-data-x-quick-8"]


def test_a_folder_with_a_run_or_anything_else_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunExistsError, match="already holds a run") as caught:
        runs.create(folder, "data", Recipe(), {})
    assert caught.value.exit_code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(RunExistsError, match="not empty"):
        runs.create(tmp_path / "full", "data", Recipe(), {})


def test_a_second_process_in_the_same_run_is_refused_and_a_killed_one_lets_go(folder: Path) -> None:
    code = (
        "import pathlib, sys, time; from tenfold import run; "
        "r = run.reopen(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(RunError, match="in use by another"):
            runs.reopen(folder)
    finally:
        holder.kill()
        holder.wait()
    runs.reopen(folder).close()


def test_a_checkpoint_comes_back_as_it_was(folder: Path) -> None:
    arrays = {"weight/a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "optimizer/a#step": np.float32(3).reshape(())}
    with runs.reopen(folder) as run:
        assert run.last() is None
        run.save(State(arrays, {"step": 3, "sums": [0.1, 2.0]}))
        found = run.last()
    assert found is not None
    assert found.meta == {"step": 3, "sums": [0.1, 2.0]}
    assert all(np.array_equal(found.arrays[n], arrays[n]) for n in arrays)
    assert found.arrays["optimizer/a#step"].shape == ()


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 100])
def test_a_damaged_checkpoint_is_told_by_name(folder: Path, content: bytes) -> None:
    (folder / "checkpoint").mkdir()
    (folder / runs.CHECKPOINT).write_bytes(content)
    with runs.reopen(folder) as run, pytest.raises(RunError, match=r"last\.safetensors is damaged"):
        run.last()


def test_metrics_past_the_checkpoint_and_cut_lines_are_dropped(folder: Path) -> None:
    with runs.reopen(folder) as run:
        for step in (1, 2, 3, 4):
            run.log({"step": step})
        with (folder / runs.METRICS).open("a") as file:
            file.write('{"step": 5, "lo')
        run.trim_metrics(3)
        run.log({"step": 4})
    rows = [json.loads(line)["step"] for line in (folder / runs.METRICS).read_text().splitlines()]
    assert rows == [1, 2, 3, 4]


def test_what_cannot_be_resumed_says_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        runs.reopen(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        runs.reopen(tmp_path / "empty")
    with runs.reopen(folder) as run:
        run.update(status="finished")
    with pytest.raises(RunError, match="is finished"):
        runs.reopen(folder)
    (folder / runs.RUN).write_text("[")
    with pytest.raises(RunError, match=r"run\.json can't be read"):
        runs.reopen(folder)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from tenfold import paths

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with runs.reopen(folder) as run:
        run.save(State({"weight/a": np.ones(2, np.float32)}, {"step": 1}))
        monkeypatch.setattr(paths, "write_whole", full)
        with pytest.raises(RunError, match="No space left on device") as caught:
            run.save(State({"weight/a": np.zeros(2, np.float32)}, {"step": 2}))
        assert "--resume" in str(caught.value)
        found = run.last()
    assert found is not None
    assert found.meta["step"] == 1
