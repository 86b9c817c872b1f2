"""What contestants print is read right. The programs themselves need TensorFlow or torchvision: a race tries them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import airbench
import pytest
import roster

# The format of airbench94_muon.py: print_columns() and print_training_details() of that file.
AIRBENCH94 = """\
---------------------------------------------------------------------------------
|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |
---------------------------------------------------------------------------------
|  warmup  |      0  |     0.1025  |   0.0992  |               |        0.4301  |
|          |      1  |     0.1015  |   0.1014  |               |        0.8012  |
|          |   eval  |     0.1015  |   0.1014  |       0.1008  |        0.9055  |
---------------------------------------------------------------------------------
|       0  |      0  |     0.6025  |   0.5921  |               |        0.3301  |
|          |      1  |     0.9415  |   0.9342  |               |        2.4012  |
|          |   eval  |     0.9415  |   0.9342  |       0.9407  |        2.5055  |
---------------------------------------------------------------------------------
"""

# airbench96_faster.py: other columns, no warm-up, and lines of its own in between.
AIRBENCH96 = """\
-----------------------------------------------------------------------------------------------------------
|  run     |  epoch  |  train_loss  |  train_acc  |  val_acc  |  tta_val_acc  |  total_time_seconds  |
-----------------------------------------------------------------------------------------------------------
Main model parameters: 9700000
Training small proxy...
Proxy parameters: 200000
|       0  |      0  |      1.5012  |     0.4941  |   0.5002  |               |              5.1234  |
|          |     44  |      0.6012  |     0.9941  |   0.9502  |               |             27.1234  |
|          |   eval  |      0.6012  |     0.9941  |   0.9502  |       0.9603  |             27.6001  |
-----------------------------------------------------------------------------------------------------------
"""

# cifar10_speedrun.py: only the result's row; a line of means that ends with a carriage return comes before the next.
SPEEDRUN = """\
---------------------------------------------------------------------------------
|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |
---------------------------------------------------------------------------------
|  warmup  |   eval  |     0.1015  |   0.1014  |       0.1008  |       39.9055  |
---------------------------------------------------------------------------------
|       1  |   eval  |     0.9515  |   0.9342  |       0.9404  |        2.0055  |
---------------------------------------------------------------------------------
Mean accuracy after 1 runs: 0.940400 | Mean time: 2.005500s\r|       2  |   eval  |     0.9515  |   0.9352  |       0.9414  |        2.0155  |
---------------------------------------------------------------------------------
"""  # noqa: E501


def test_airbench94_s_table() -> None:
    warmup, first = airbench.read_rows(AIRBENCH94.splitlines())
    assert warmup == {"run": "warmup", "val_acc": 0.1014, "tta_val_acc": 0.1008, "seconds": 0.9055}
    assert first == {"run": "0", "val_acc": 0.9342, "tta_val_acc": 0.9407, "seconds": 2.5055}


def test_airbench96_s_table() -> None:
    (first,) = airbench.read_rows(AIRBENCH96.splitlines())
    assert first == {"run": "0", "val_acc": 0.9502, "tta_val_acc": 0.9603, "seconds": 27.6001}


def test_the_speedrun_s_table() -> None:
    rows = list(airbench.read_rows(SPEEDRUN.split("\n")))
    assert [row["run"] for row in rows] == ["warmup", "1", "2"]
    assert rows[2] == {"run": "2", "val_acc": 0.9352, "tta_val_acc": 0.9414, "seconds": 2.0155}


def test_a_script_is_ended_after_its_first_counted_run(tmp_path: Path) -> None:
    script = tmp_path / "airbench94_muon.py"
    script.write_text(f"import time\nprint({AIRBENCH94!r})\ntime.sleep(600)\n")
    command = [sys.executable, airbench.__file__, str(script), "--data", str(tmp_path), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    report = roster.last_line(done.stdout)
    assert report["accuracy"] == report["accuracy_with_tta"] == 0.9407
    assert report["accuracy_without_tta"] == 0.9342
    assert report["seconds"] == {"train": 2.5055, "warmup": 0.9055}


def test_a_script_without_a_result_fails(tmp_path: Path) -> None:
    script = tmp_path / "airbench94_muon.py"
    script.write_text("print('no CUDA here')\nraise SystemExit(3)\n")
    command = [sys.executable, airbench.__file__, str(script), "--data", str(tmp_path), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "without a result (exit code 3)" in done.stderr


def test_the_last_line_with_an_accuracy_is_the_report() -> None:
    printed = 'epoch 1 {\'loss\': 1}\n{"accuracy": 0.5}\n{"accuracy": 0.6}\n{"note": 1}\n{broken\n'
    assert roster.last_line(printed)["accuracy"] == 0.6
    with pytest.raises(roster.RaceError):
        roster.last_line("done\n")


@pytest.mark.parametrize(("tta", "plain", "with_tta"), [("none", 0.83, None), ("flip", None, 0.83)])
def test_tenfold_s_report(tta: str, plain: float | None, with_tta: float | None, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps({"tta": tta}))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"versions": {"torch": "2"}}))
    told = {"test": {"accuracy": 0.83, "n": 9}, "seconds": {"train": 2.0}, "device": "cpu", "peak_memory_bytes": 5}
    report = roster.tenfold_report(json.dumps(told, indent=2), tmp_path)
    assert (report["accuracy_without_tta"], report["accuracy_with_tta"]) == (plain, with_tta)
    assert report["accuracy"] == 0.83 and report["versions"] == {"torch": "2"} and report["device_bytes"] is None
    (tmp_path / "run" / "evaluation.json").unlink()
    with pytest.raises(roster.RaceError):
        roster.tenfold_report(json.dumps(told), tmp_path)
