"""TensorBoard event files from a run's metrics, by the tensorboard package alone (no framework)."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenfold.errors import MissingExtraError

_TAGS = {
    "step": {
        "loss": "train/loss",
        "accuracy": "train/accuracy",
        "lr": "train/lr",
        "images_per_second": "speed",
    },
    "epoch": {
        "loss": "epoch/train_loss",
        "accuracy": "epoch/train_accuracy",
        "val_loss": "epoch/val_loss",
        "val_accuracy": "epoch/val_accuracy",
    },
}


def require() -> None:
    """Raises MissingExtraError where the package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard", "tensorboard", "log.tensorboard=true")


@contextmanager
def writer(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a line of metrics.jsonl as scalars; the file is closed with the block."""
    require()
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    out = EventFileWriter(str(folder))

    def write(row: Mapping[str, Any]) -> None:
        values = [
            Summary.Value(tag=tag, simple_value=float(row[name]))
            for name, tag in _TAGS[row["event"]].items()
            if row.get(name) is not None
        ]
        out.add_event(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values)))

    try:
        yield write
    finally:
        out.close()
