"""tenfold: from a dataset's name or a folder of pictures to a trained, measured, explained model.

    import tenfold

    run = tenfold.train("cifar10", recipe="quick")
    model = tenfold.load(run.path)
    model.predict("cat.jpg")

Importing tenfold imports no framework; every public name is loaded when it is first used.
The modules behind train(), evaluate(), compare(), tune(), bench(), profile() and verify() are called training,
evaluation, comparison, tuning, benchmarking, profiling and verification, because importing a submodule puts it under
its own name into the package and would hide the function. That is also why the function of tenfold.export is called
export_model().
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime tells its makers of every process and session, under an identifier that it leaves in the
# user's cache folder, unless this stands in the environment before it is imported. What a user has set there stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "train": "tenfold.training",
    "TrainResult": "tenfold.training",
    "compare": "tenfold.comparison.work",
    "Comparison": "tenfold.comparison.records",
    "bench": "tenfold.benchmarking.work",
    "Benchmark": "tenfold.benchmarking.records",
    "bench_training": "tenfold.benchmarking.training",
    "profile": "tenfold.profiling.work",
    "Profile": "tenfold.profiling.records",
    "load": "tenfold.predict",
    "Model": "tenfold.predict",
    "Prediction": "tenfold.predict",
    "Explanation": "tenfold.explanation",
    "evaluate": "tenfold.evaluation",
    "Evaluation": "tenfold.evaluation",
    "tune": "tenfold.tuning.work",
    "Tuning": "tenfold.tuning.records",
    "verify": "tenfold.verification",
    "Verification": "tenfold.verification",
    "export_model": "tenfold.export.job",
    "Exported": "tenfold.export.verdicts",
    "load_dataset": "tenfold.data",
    "Dataset": "tenfold.data.dataset",
    "Split": "tenfold.data.dataset",
    "Recipe": "tenfold.recipe",
    "TenfoldError": "tenfold.errors",
}

__all__ = [
    "Benchmark",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Explanation",
    "Exported",
    "Model",
    "Prediction",
    "Profile",
    "Recipe",
    "Split",
    "TenfoldError",
    "TrainResult",
    "Tuning",
    "Verification",
    "__version__",
    "bench",
    "bench_training",
    "compare",
    "evaluate",
    "export_model",
    "load",
    "load_dataset",
    "profile",
    "train",
    "tune",
    "verify",
]

if TYPE_CHECKING:
    from tenfold.benchmarking.records import Benchmark
    from tenfold.benchmarking.training import bench_training
    from tenfold.benchmarking.work import bench
    from tenfold.comparison.records import Comparison
    from tenfold.comparison.work import compare
    from tenfold.data import load_dataset
    from tenfold.data.dataset import Dataset, Split
    from tenfold.errors import TenfoldError
    from tenfold.evaluation import Evaluation, evaluate
    from tenfold.explanation import Explanation
    from tenfold.export.job import export_model
    from tenfold.export.verdicts import Exported
    from tenfold.predict import Model, Prediction, load
    from tenfold.profiling.records import Profile
    from tenfold.profiling.work import profile
    from tenfold.recipe import Recipe
    from tenfold.training import TrainResult, train
    from tenfold.tuning.records import Tuning
    from tenfold.tuning.work import tune
    from tenfold.verification import Verification, verify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
