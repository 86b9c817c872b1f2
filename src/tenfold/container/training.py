"""SageMaker's training job: ``tenfold train`` for what /opt/ml asks, and its model, report or failure put back there.

input/config/hyperparameters.json   what is asked: call.py
input/data/<channel>/               the pictures
checkpoints/                        kept by SageMaker beyond an interruption, where the job has such a place
model/                              becomes model.tar.gz: a run folder without its checkpoint
output/data/                        becomes output.tar.gz: the report and its figures
output/failure                      why it failed, which SageMaker shows
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenfold import children, paths, run
from tenfold.container import call
from tenfold.errors import CallError, StoppedError, TenfoldError, TrainingError

MODEL_FILES = ("run.json", "recipe.yaml", "metrics.jsonl", "evaluation.json", "report.html")
MAX_FAILURE = 1024  # characters of it that SageMaker shows
CALL = "call.json"


class _SaidError(TenfoldError):
    """What the process that trains has told on standard error itself."""


def train(root: Path) -> int:
    """Do the job in ``root`` and give the exit code; what went wrong is in output/failure and on standard error."""
    from tenfold.cli import render

    try:
        _require_places(root)
        (root / "output/failure").unlink(missing_ok=True)
        _deliver(_work(root), root)
        return 0
    except _SaidError as error:
        code, reason = error.exit_code, str(error)
    except TenfoldError as error:
        code, reason = render.fail(error), str(error)
    except Exception as error:  # a bug: its traceback is for the log
        traceback.print_exc()
        code, reason = 1, f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        paths.write_whole(root / "output/failure", reason[:MAX_FAILURE])
    return code


def _require_places(root: Path) -> None:
    """Refused before anything is trained: that what comes of it can't be put where it is wanted."""
    for place in ("model", "output"):
        with contextlib.suppress(OSError):
            (root / place).mkdir(parents=True, exist_ok=True)
        if not os.access(root / place, os.W_OK | os.X_OK):
            raise CallError(
                f"{root / place} can't be written.",
                'Mount a folder there that the container\'s user may write; docker run --user "$(id -u)" makes it you.',
            )


def _work(root: Path) -> Path:
    """The folder of the finished run."""
    words = call.words(root)
    kept = (root / "checkpoints").is_dir()
    place = root / "checkpoints" if kept else Path(tempfile.mkdtemp(prefix="tenfold-"))
    begun = _begun(place, words)
    folder = place / (begun or _name(os.environ.get("TRAINING_JOB_NAME", "")))
    status = _status(folder) if begun else None
    if status is None:
        paths.write_whole(place / CALL, json.dumps({"run": folder.name, "train": words}) + "\n")
        _tenfold(["train", f"--out={folder}", "--json", *words], kept)
    elif status != "finished":
        _tenfold(["train", f"--resume={folder}", "--json"], kept)
    else:
        print(f"{folder} is finished already; its model is handed over.", file=sys.stderr)
    return folder


def _name(job: str) -> str:
    """The run's name, and so the model's: the job's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", job).strip("-")[:63] or "run"


def _begun(place: Path, words: list[str]) -> str | None:
    """The name of the run that this job has begun in ``place``, None where there is none yet.

    CallError where another job's is there: its checkpoints are neither this one's nor to be overwritten.
    """
    file = place / CALL
    if not file.exists():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        before, name = [str(word) for word in said["train"]], _name(said["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CallError(f"{file} can't be read: {error}.", "Empty the checkpoints' place to start anew.") from None
    if before != words:
        raise CallError(
            f"{place} holds the checkpoints of another job: that was tenfold train {shlex.join(before)}, "
            f"this is tenfold train {shlex.join(words)}.",
            "Give this job a checkpoint place of its own.",
        )
    return name


def _status(folder: Path) -> str | None:
    """How a run was left; None where it is to begin, what was ended before it could be gone on from being removed."""
    try:
        return str(json.loads((folder / run.RUN).read_text(encoding="utf-8"))["status"])
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CallError(f"{folder / run.RUN} can't be read: {error}.", "Empty the checkpoints' place.") from None


# ---- the process that trains ------------------------------------------------------------------------------------


def _tenfold(words: list[str], kept: bool) -> None:
    """Run a command line that prints one JSON object, whose error is raised. SIGTERM and Ctrl-C are passed on to it.

    A process of its own, so that a reason is left also where the training is killed.
    """
    with _passing_signals() as (started, stopped):
        child = subprocess.Popen(
            [*children.command("tenfold"), *words],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=children.environment(),
            start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, and is passed on once
        )
        started(child)
        printed, _ = child.communicate()
    sys.stdout.write(printed.decode("utf-8", "replace"))
    sys.stdout.flush()
    if child.returncode == 0:
        return
    if stopped:
        raise StoppedError(
            f"The job was stopped by {signal.Signals(stopped[0]).name}.",
            "The last checkpoint is kept; the same job goes on from it."
            if kept
            else "Its checkpoint is lost: the job has no checkpoint place (checkpoint_s3_uri).",
        )
    raise _error(printed, child.returncode)


@contextmanager
def _passing_signals() -> Iterator[Any]:
    """(started, stopped): ``started`` is told of the child; ``stopped`` lists the signals that have come."""
    running: list[subprocess.Popen[bytes]] = []
    came: list[int] = []

    def take(number: int, frame: object) -> None:
        came.append(number)
        for child in running:
            child.send_signal(number)

    def started(child: subprocess.Popen[bytes]) -> None:
        running.append(child)
        for number in came:  # while it was being started
            child.send_signal(number)

    before = {number: signal.signal(number, take) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield started, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _error(printed: bytes, code: int) -> TenfoldError:
    """What the child said of its failure, or what its end says."""
    if code == -signal.SIGKILL:
        return TrainingError(
            "The training was killed, most likely because memory ran out.", "Take a larger instance or a smaller batch."
        )
    if code < 0:
        return TrainingError(f"The training was ended by {signal.Signals(-code).name}.", "The log has the rest.")
    try:
        said = json.loads(printed)["error"]
        error = _SaidError(said["message"], said["hint"])
    except (ValueError, KeyError, TypeError):
        return TrainingError(f"The training failed with exit code {code}.", "The log has the rest.")
    error.exit_code = code
    return error


# ---- what is left -------------------------------------------------------------------------------------------------


def _deliver(folder: Path, root: Path) -> None:
    """The run without its checkpoint to model/, its report and figures to output/data/. What lies there else stays."""
    model, output = root / "model", root / "output/data"
    for place in (model, output):
        place.mkdir(parents=True, exist_ok=True)
    with paths.folder_whole(model / run.BUNDLE) as new:
        _copy(folder / run.BUNDLE, new)
    for name in MODEL_FILES:
        if (folder / name).exists():  # no test images, no evaluation.json
            for place in (model, output):
                paths.write_whole(place / name, (folder / name).read_bytes())
    if (folder / "plots").is_dir():
        with paths.folder_whole(output / "plots") as new:
            _copy(folder / "plots", new)


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)
            (target / file.name).chmod(0o644)
