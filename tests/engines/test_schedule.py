from __future__ import annotations

import pytest

from tenfold.engines.schedule import factor, plan
from tenfold.recipe import Recipe, Schedule


@pytest.mark.parametrize(
    ("schedule", "at", "wanted"),
    [
        (Schedule(name="constant"), 0.7, 1.0),
        (Schedule(name="linear"), 0.25, 0.75),
        (Schedule(name="linear", final=0.1), 1.0, 0.1),
        (Schedule(name="linear", warmup=0.2, start=0.1), 0.0, 0.1),
        (Schedule(name="linear", warmup=0.2), 0.1, 0.5),
        (Schedule(name="linear", warmup=0.2), 0.6, 0.5),
        (Schedule(name="cosine"), 0.5, 0.5),
        (Schedule(name="cosine"), 1.0, 0.0),
        (Schedule(name="onecycle"), 0.0, 0.04),
        (Schedule(name="onecycle"), 0.3, 1.0),
        (Schedule(name="onecycle", final=0.01), 1.0, 0.01),
        (Schedule(name="step"), 0.49, 1.0),
        (Schedule(name="step"), 0.5, 0.1),
        (Schedule(name="step"), 0.9, 0.01),
    ],
)
def test_the_factor_at_a_point_of_the_run(schedule: Schedule, at: float, wanted: float) -> None:
    assert factor(schedule, at) == pytest.approx(wanted)


def test_a_plan_counts_whole_batches_and_parts_of_epochs() -> None:
    assert plan(Recipe(epochs=2.5, batch_size=100), 1050).steps == 25
    assert plan(Recipe(epochs=1, batch_size=100), 30) == plan(Recipe(epochs=1, batch_size=30), 30)
    assert plan(Recipe(epochs=0.001), 1000).steps == 1
    assert plan(Recipe(epochs=1, min_steps=500), 1280).steps == 500
    assert plan(Recipe(epochs=3, batch_size=10), 100).epoch_of(29) == 2
