"""Exported artifacts behind a real server give what ``tenfold predict`` says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_client import png, serving

from tenfold import children
from tenfold.cli.app import run
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.export import formats, job, worker

FORMATS = ("onnx-int8", "openvino-fp16")


@pytest.fixture(scope="module")
def artifacts(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact of each format, quantised for pictures of noise."""
    for name in FORMATS:
        if (missing := formats.FORMATS[name].missing()) is not None:
            pytest.skip(f"needs {missing[0]}")
    rng = np.random.default_rng(0)
    splits = {
        name: Split(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), np.arange(n) % 3, [f"{name}/{i}" for i in range(n)])
        for name, n in (("train", 64), ("val", 32))
    }
    data = Dataset("noise", "noise", tuple(f"class {i}" for i in range(3)), splits, Geometry(8, 8))
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            children, "outcome", lambda module, line, log, result: worker.done(worker.Job(**json.loads(line)))
        )
        made = job.export_model(tiny_bundle, FORMATS, out=out, data=data)
    assert made.passed, [result.message for result in made.results]
    return out


def predicted(capsys: pytest.CaptureFixture[str], artifact: Path, files: list[Path]) -> list[dict[str, Any]]:
    """What ``tenfold predict`` says of the pictures."""
    assert run(["predict", str(artifact), *map(str, files), "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def test_a_server_of_artifacts_says_what_predict_says(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, file in enumerate(files):
        file.write_bytes(png(seed))
    models = [f"{name}={artifacts / name}" for name in FORMATS]
    with serving(*models, "--workers", "1", folder=tmp_path) as server:
        for name in FORMATS:
            wanted = predicted(capsys, artifacts / name, files)
            for file, of_predict in zip(files, wanted, strict=True):
                reply = server.post(f"/predict?model={name}", file.read_bytes())
                assert reply.status == 200, reply.body
                [told] = reply.json["predictions"]
                assert told["class"] == ("unknown" if of_predict["unknown"] else of_predict["top"][0]["class"])
                found = {pair["class"]: pair["probability"] for pair in told["top"]}
                said = {pair["class"]: pair["probability"] for pair in of_predict["top"]}
                assert found == pytest.approx(said, abs=1e-5), (name, file.name)
        assert server.stop() == 0
