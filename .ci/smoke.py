"""A whole way through the real command line: train, measure, predict, and every other verb once.

Each call is a process of its own, as a user's is; with --json its standard output must be one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

TENFOLD = [sys.executable, "-m", "tenfold"]
KEYS = [
    "run",
    "bundle",
    "engine",
    "device",
    "processes",
    "epochs",
    "test",
    "seconds",
    "images_per_second",
    "parameters",
    "precision",
    "peak_memory_bytes",
    "device_memory_bytes",
    "notes",
]
SECONDS = ["import", "data", "setup", "train", "evaluate", "save", "total"]


def tenfold(*args: str | Path, code: int = 0, cwd: Path) -> str:
    """Standard output of one call; the smoke run ends here where its exit code is another than ``code``."""
    shown = textwrap.shorten(" ".join(a.name if isinstance(a, Path) else a for a in args), 90, placeholder=" …")
    begun = time.monotonic()
    done = subprocess.run(
        [*TENFOLD, *map(str, args)], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL
    )
    if done.returncode != code:
        sys.exit(f"tenfold {shown}: exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
    print(f"  {time.monotonic() - begun:6.2f} s  tenfold {shown}", flush=True)
    return done.stdout


def answer(*args: str | Path, code: int = 0, cwd: Path) -> dict[str, Any]:
    found = json.loads(tenfold(*args, "--json", code=code, cwd=cwd))
    assert isinstance(found, dict), found
    return found


def pictures(folder: Path) -> list[Path]:
    """Ten test pictures of digits as files, named by their class."""
    from PIL import Image

    import tenfold as library

    data = library.load_dataset("digits")
    test = data["test"]
    paths = []
    for label, name in enumerate(data.classes):
        path = folder / f"{name}.png"
        Image.fromarray(test.images[list(test.labels).index(label)]).save(path)
        paths.append(path)
    return paths


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        trained = answer("train", "digits", "--device", "cpu", "--out", "runs/smoke", cwd=here)
        assert list(trained) == KEYS and list(trained["seconds"]) == SECONDS, trained
        assert trained["test"]["accuracy"] >= 0.98 and trained["test"]["n"] >= 300, trained["test"]
        run = here / trained["run"]
        for name in ("report.html", "evaluation.json", "metrics.jsonl", "model/model.onnx", "plots/confusion.png"):
            assert (run / name).stat().st_size > 0, name

        measured = answer("evaluate", run, cwd=here)
        assert abs(measured["accuracy"] - trained["test"]["accuracy"]) < 0.01, (measured["accuracy"], trained["test"])

        verified = answer("verify", run, cwd=here)
        assert verified["passed"] and [s["images"] for s in verified["sets"]] == [16, measured["n"]], verified

        files = pictures(here)
        for model in (run, run / "model", run / "model" / "model.onnx"):
            predicted = answer("predict", model, *files, cwd=here)
            right = sum(p["top"][0]["class"] == Path(p["path"]).stem for p in predicted["predictions"])
            assert right >= 9, predicted
        tenfold("predict", run, "*.png", "--csv", "answers.csv", cwd=here)
        assert len((here / "answers.csv").read_text().splitlines()) == 11
        (here / "broken.png").write_bytes(b"no picture")
        tenfold("predict", run, "broken.png", code=1, cwd=here)

        exported = answer("export", run, "--format", "onnx-int8", cwd=here)
        assert [r["state"] for r in exported["results"]] == ["exported"], exported
        quick = ["--runtimes", "onnxruntime", "--batch-sizes", "1", "--seconds", "0.2", "--rounds", "1"]
        benched = answer("bench", run, *quick, cwd=here)
        assert [r["status"] for r in benched["rows"]] == ["done", "done"], benched["rows"]
        assert (here / benched["path"] / "bench.png").stat().st_size > 0
        profiled = answer("profile", run, "--steps", "3", cwd=here)
        assert (here / profiled["path"] / "profile.html").stat().st_size > 0, profiled

        small = ["--epochs", "1", "--set", "model.widths=[8, 8]", "--seeds", "1"]
        compared = answer("compare", "digits", "--engines", "torch", "--devices", "cpu", *small, cwd=here)
        assert compared["rows"][0]["n"] == 1 and compared["rows"][0]["accuracy"]["n"] == 1, compared["rows"]
        assert (here / compared["path"] / "compare.png").stat().st_size > 0

        answer("show", "digits", cwd=here)
        answer("check", "digits", cwd=here)
        assert {"quick", "sprint"} <= {r["name"] for r in answer("recipes", cwd=here)["recipes"]}
        assert answer("doctor", cwd=here)["tenfold"]
        refused = answer("train", "digits", "--recipe", "quik", code=2, cwd=here)
        assert refused["error"]["exit_code"] == 2 and "quick" in refused["error"]["hint"], refused
    print("smoke: all well")


if __name__ == "__main__":
    main()
