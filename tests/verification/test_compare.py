"""Verdicts on given answers, without a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenfold.bundle.golden import expected
from tenfold.verification.backends import Backend
from tenfold.verification.compare import Asked, Compared
from tenfold.verification.verdicts import ImageSet
from tenfold.verification.worker import Job, Outcome

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0 + 1e-6, 0.0]], np.float32)
TEMPERATURE = 1.5
SETS = [ImageSet("golden", None, 3, "stored"), ImageSet("test", "data", 3, "ONNX Runtime")]


def asked(folder: Path, kind: str, name: str, answers: np.ndarray | None, state: str = "answered") -> Asked:
    """A backend that gave ``answers`` for both sets."""
    job = Job(kind, name, "model", str(folder), ["golden", "test"], "auto")
    for part in job.sets if answers is not None else ():
        np.save(job.answers(part), answers)
    return Asked(
        Backend(kind, name, (name,), None), job, Outcome(state, None, "cpu", "1", {"golden": 1, "test": 2}), 4.0
    )  # type: ignore[arg-type]


def compared(trained: str, *those: Asked) -> Compared:
    return Compared(TEMPERATURE, trained, those, SETS, expected(LOGITS, TEMPERATURE))


def test_logits_are_compared_with_those_of_the_engine_that_trained_it(tmp_path: Path) -> None:
    off = LOGITS.copy()
    off[1, 0] += 3e-5
    jax = asked(tmp_path, "engine", "jax", off)
    torch = asked(tmp_path, "engine", "torch", LOGITS)
    ort = asked(tmp_path, "runtime", "onnxruntime", expected(LOGITS, TEMPERATURE))
    found = compared("torch", jax, torch, ort)
    assert found.first is torch
    golden, test = found.rows(jax.backend)
    assert (golden.set, golden.state, test.set, test.state) == ("golden", "passed", "test", "passed")
    assert golden.logit_difference == pytest.approx(3e-5, rel=0.01)
    assert golden.probability_difference and golden.probability_difference < 1e-5
    assert (golden.seconds, test.seconds, golden.process_seconds) == (1, 2, 4)
    assert all(row.logit_difference is None for row in (*found.rows(torch.backend), *found.rows(ort.backend)))
    assert [row.state for row in found.rows(ort.backend)] == ["passed", "reference"]


def test_where_that_engine_gave_none_the_first_that_did_is_taken(tmp_path: Path) -> None:
    torch = asked(tmp_path, "engine", "torch", None, "failed")
    jax = asked(tmp_path, "engine", "jax", LOGITS)
    found = compared("torch", torch, jax)
    assert found.first is jax
    (row,) = found.rows(torch.backend)
    assert (row.state, row.set) == ("failed", None)


def test_another_first_class_fails_but_a_tie_does_not(tmp_path: Path) -> None:
    tie, other = LOGITS.copy(), LOGITS.copy()
    tie[2, :2] = tie[2, 1::-1]
    other[0, :2] = other[0, 1::-1]
    found = compared("torch", a := asked(tmp_path, "engine", "a", tie), b := asked(tmp_path, "engine", "b", other))
    assert [(r.state, r.top1_agree) for r in found.rows(a.backend)] == [("passed", 3)]
    assert [(r.state, r.top1_agree) for r in found.rows(b.backend)] == [("failed", 2)]
    assert found.notes == ["data, test, was not compared: onnxruntime gave no answers."]


def test_the_temperature_is_the_models(tmp_path: Path) -> None:
    """Logits of the right order and another scale are other probabilities."""
    engine = asked(tmp_path, "engine", "torch", LOGITS * np.float32(1.01))
    (row,) = compared("torch", engine).rows(engine.backend)
    assert row.state == "failed" and row.top1_agree == 3
