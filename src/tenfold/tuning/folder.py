"""What was asked for, and what is left in the search's folder: the figures, the winner as a recipe, the page."""

from __future__ import annotations

import datetime
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenfold
from tenfold import hardware, paths
from tenfold import recipe as recipes
from tenfold.errors import RunError
from tenfold.recipe import Recipe
from tenfold.tuning import records, storage
from tenfold.tuning.records import Tuning
from tenfold.tuning.search import Search

if TYPE_CHECKING:
    from optuna import Study

FILE, RECIPE, BEST, LOGS = "tune.json", "recipe.yaml", "best.yaml", "logs"
FORMAT = 1


@dataclass(frozen=True)
class Call:
    """What was asked for, with all checked that can be without data."""

    data: str
    recipe: Recipe
    engine: str
    device: str
    trials: int | None
    time_limit: float | None
    workers: int
    storage: str | None
    study: str | None
    seeds: int
    slower: bool
    since: float
    command: str


@dataclass(frozen=True)
class Ground:
    """The recipe on its data. ``base`` has the space in ``tune``; ``passes`` are the epochs of a whole training."""

    base: Recipe
    passes: int
    source: str
    name: str
    fingerprint: str
    has_test: bool
    notes: list[str]


@dataclass
class Kept:
    """What the folder holds of a search."""

    folder: Path
    call: Call
    ground: Ground
    study: Study
    where: str

    def going_on(self) -> str:
        name = f"--study {shlex.quote(self.study.study_name)} " if self.call.study or self.call.storage else ""
        return f"{name}--out {shlex.quote(str(self.folder))}"

    def write_status(self, status: str) -> None:
        """tune.json without figures: they are in the study."""
        self._write({"format": FORMAT, "status": status, "study": self.study.study_name, "storage": self._storage()})

    def _storage(self) -> str:
        return storage.without_password(self.where)

    def _write(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        try:
            paths.write_whole(self.folder / FILE, text + "\n")
        except OSError as error:
            raise RunError(f"{self.folder / FILE} can't be written: {error.strerror}.") from None

    def finish(self, search: Search) -> Tuning:
        from tenfold.tuning import page
        from tenfold.tuning.importance import importance

        trials = search.trials()
        won = records.winner(search.confirmed, self.call.slower)
        found = records.candidates(trials)
        best = max(found, key=lambda t: (t.value or 0.0, t.recipe), default=None)
        number = won.number if won is not None else best.number if best is not None else None
        chosen = next((t for t in trials if t.number == number), None)
        own = next((c for c in records.common(search.confirmed) if c.recipe), None)
        notes = list(search.notes)
        if not self.call.slower:
            notes += [
                f"{str(c).capitalize()} can't win: it trains longer than the recipe, {c.mean_seconds() or 0:.0f} s."
                for c in records.too_slow(search.confirmed)
            ]
        if chosen is None:
            notes.append("No trial was trained to its end, so there is no best.yaml. Give it more time.")
        elif won is None:
            notes.append("The best trial was not confirmed: its accuracy is that of one seed, the luckiest of many.")
        gain = won.mean - own.mean if won and own and won.mean is not None and own.mean is not None else None
        result = Tuning(
            path=self.folder,
            best=self._write_best(search, chosen),
            page=self.folder / page.PAGE,
            study=self.study.study_name,
            storage=self._storage(),
            data=self.ground.source,
            recipe=self.ground.base.model_dump(mode="json", exclude={"tune"}),
            space=self.ground.base.model_dump(mode="json")["tune"],
            trials=trials,
            confirmed=search.confirmed,
            number=number,
            recipe_won=chosen is not None and chosen.recipe,
            gain=gain,
            clear=bool(won and own and records.clearly(won, own)),
            test=search.test,
            test_reads=self.study.user_attrs.get(storage.TEST_READS, 0),
            importance=importance(self.study),
            seconds={**search.seconds, "total": round(time.time() - self.call.since, 3)},
            time_limit=self.call.time_limit,
            workers=self.call.workers,
            engine=self.call.engine,
            device=search.device,
            notes=notes,
            hardware=hardware.describe(),
            versions={
                "tenfold": tenfold.__version__,
                **hardware.versions("optuna", "numpy"),
                **search.versions,
            },
            command=f"{self.call.command} {self.going_on()}",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        figures = {"format": FORMAT, "status": "finished", **result.to_dict()}
        for name in ("path", "best", "page"):  # the folder may be moved
            del figures[name]
        self._write(figures)
        page.write(result)
        return result

    def _write_best(self, search: Search, chosen: records.Trial | None) -> Path | None:
        """The winner as a recipe to train with: on all the images that the recipe itself would train on."""
        if chosen is None:
            return None
        own, base = self.call.recipe, self.ground.base
        name = base.name if base.name.endswith("-tuned") else f"{base.name[:70]}-tuned"
        about = f"{base.name}, tuned on {self.ground.name}" if not chosen.recipe else base.description
        recipe = recipes.override(
            base,
            {
                **search.changes(chosen),
                "name": name,
                "description": f"{about}: {chosen} of the study {self.study.study_name}."[:2000]
                if not chosen.recipe
                else about,
                "data.size": own.data.size,
                "data.interpolation": own.data.interpolation,
                "data.val_fraction": own.data.val_fraction,
                "tune": None,
            },
        )
        paths.write_whole(self.folder / BEST, recipe.to_yaml())
        return self.folder / BEST
