"""What an image of tenfold does when it is started: ``python -m tenfold.container``. See docs/deploy.md.

train                 SageMaker's training job: all it needs is in /opt/ml (training.py)
serve [words]         tenfold serve for the model in /opt/ml/model, on every address of the container (serving.py)
health                exit code 0 once the server beside it is ready
COMMAND words         tenfold COMMAND words; so is ``train`` with any words after it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tenfold.errors import CallError

PORT = 8080


def layout(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the platform lays model, data and settings: /opt/ml, as SageMaker does; TENFOLD_OPT_ML names another."""
    return Path(environ.get("TENFOLD_OPT_ML") or "/opt/ml")


def port(environ: Mapping[str, str] = os.environ) -> int:
    """The port that the platform sends requests to; CallError where what it says is none."""
    for name in ("SAGEMAKER_BIND_TO_PORT", "AIP_HTTP_PORT"):
        if text := environ.get(name, "").strip():
            if text.isascii() and text.isdecimal() and 0 < int(text) < 2**16:
                return int(text)
            raise CallError(f"{name} is {text!r}, which is no port.", "A port is a number from 1 to 65535.")
    return PORT
