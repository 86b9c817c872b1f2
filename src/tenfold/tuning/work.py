"""A search from its call to its folder: what is checked before anything is trained, and what is left at the end.

runs/tune-cifar10-quick-1/
  recipe.yaml     the recipe on this data, with the space that was searched in its tune section
  study.journal   every trial: optuna-dashboard opens it (where --storage names none)
  best.yaml       the winner, a recipe to train with
  tune.json       all figures        tune.html  the page
  logs/           what the workers' frameworks printed
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tenfold import hardware, networks, paths
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.children import terminated_as_interrupted
from tenfold.data import load_dataset
from tenfold.data.progress import Progress
from tenfold.engines import base as engines
from tenfold.engines import external
from tenfold.engines.schedule import plan as steps_of
from tenfold.errors import CallError, MissingExtraError, RunError, RunExistsError, StoppedError, UnknownNameError
from tenfold.recipe import Recipe
from tenfold.training import fit_to_data, overridden
from tenfold.tuning import records, space, storage
from tenfold.tuning.folder import FILE, LOGS, RECIPE, Call, Ground, Kept
from tenfold.tuning.pool import Pool
from tenfold.tuning.records import Tuning, Update
from tenfold.tuning.search import Plan, Search
from tenfold.tuning.worker import Setup

VAL_FRACTION = 0.1  # where the recipe says auto: a thousand images don't tell recipes apart that differ by a percent
TRIALS = 30

Listen = Callable[[Update | Progress], None]


def tune(
    data: str | Path = "digits",
    *,
    recipe: str | Path | Recipe = "quick",
    engine: str = "torch",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    trials: int | None = None,
    time_limit: float | None = None,
    workers: int = 1,
    storage: str | Path | None = None,
    study: str | None = None,
    seeds: int = 3,
    slower: bool = False,
    out: str | Path | None = None,
    listen: Listen | None = None,
    since: float | None = None,
) -> Tuning:
    """Search a better recipe: trials on the training images, judged on the validation images, the winner confirmed.

    data        a dataset's name, a folder of pictures or a CSV; it must have, or leave, validation images
    recipe      a preset's name, a YAML file or a Recipe: where the search begins. Its ``tune`` section is the space;
                where it has none, ``tenfold.tuning.space.default`` makes one
    trials      how many the study shall have, those before this call included; 30 where neither it nor ``time_limit``
                is given
    time_limit  seconds of everything, from ``since`` (``time.time()``; now where None) to the end
    workers     processes that train at the same time, on a CPU each with its share of the cores
    storage     a database's address or a journal file's path; a journal in the folder where None
    study       its name: one that is there goes on
    seeds       trainings of each candidate after the search, with seeds that the search has not used; 0 leaves the
                confirmation and the test split out
    slower      let trials train longer than the recipe itself does
    out         the folder; ``runs/tune-<study>``, or ``runs/tune-<data>-<recipe>-<n>``, where None
    listen      called with every Update, and with the Progress of reading the data

    Multivariate TPE draws the fields (Bergstra et al. 2011; Falkner et al. 2018), Hyperband prunes by epochs (Li et
    al. 2018). Raises CallError for what can't be asked, DataError, TrainingError where nothing can be trained, and
    StoppedError after Ctrl-C or SIGTERM: every finished trial is kept.
    """
    call = _call(
        data, recipe, engine, device, overrides or {}, trials, time_limit, workers, storage, study, seeds, slower, since
    )
    listen = listen or (lambda event: None)
    ground = _ground(call, listen)
    folder = _folder(call, out, ground)
    with _held(folder):
        return _tune_in(folder, call, ground, listen)


def _call(
    data: str | Path,
    recipe: str | Path | Recipe,
    engine: str,
    device: str,
    overrides: Mapping[str, Any],
    trials: int | None,
    time_limit: float | None,
    workers: int,
    where: str | Path | None,
    study: str | None,
    seeds: int,
    slower: bool,
    since: float | None,
) -> Call:
    storage.require()
    if recipe == "auto":
        raise CallError(
            "A search begins with one recipe, and auto is another on a GPU.", "Name one, such as --recipe quick."
        )
    _check_numbers(trials, time_limit, workers, seeds, device)
    named = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    named = overridden(named, overrides)
    if engine not in engines.ENGINES:
        raise UnknownNameError("engine", engine, engines.ENGINES)
    entry = engines.ENGINES[engine]
    if missing := entry.missing():
        raise MissingExtraError(missing, entry.extra, f"Training with the {engine} engine")
    engines.check_network(named, engine)
    address = None if where is None else storage.address(str(where))
    words = ["tenfold", "tune", str(data), "--recipe", named.name if isinstance(recipe, Recipe) else str(recipe)]
    words += [w for name, value in overrides.items() for w in ("--set", f"{name}={json.dumps(value)}")]
    for option, value, usual in (
        ("--trials", trials, None),
        ("--time-limit", None if time_limit is None else f"{time_limit:g}", None),
        ("--workers", workers, 1),
        ("--storage", None if where is None else storage.without_password(str(where)), None),
        ("--seeds", seeds, 3),
        ("--engine", engine, "torch"),
        ("--device", device, "auto"),
    ):
        words += [] if value == usual else [option, str(value)]
    words += ["--slower"] if slower else []
    if trials is None and time_limit is None:
        trials = TRIALS
    return Call(
        str(data), named, engine, device, trials, time_limit, workers, address, study, seeds, slower,
        time.time() if since is None else since, shlex.join(words),
    )  # fmt: skip


def _check_numbers(trials: int | None, time_limit: float | None, workers: int, seeds: int, device: str) -> None:
    for name, value, least in (("--trials", trials, 1), ("--workers", workers, 1), ("--seeds", seeds, 0)):
        if value is not None and value < least:
            raise CallError(f"{name} {value}: must be {least} or more.")
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise CallError(f"A time limit of {time_limit:g} s is none.", "Give a number of seconds above 0.")
    if device == "cpu" and workers > hardware.cores():
        raise CallError(f"--workers {workers}: this process has {hardware.cores()} cores.", "Take one a core at most.")


# ---- the recipe meets the data -----------------------------------------------------------------------------------


def _ground(call: Call, listen: Listen) -> Ground:
    recipe = call.recipe
    if external.library(recipe.model.name) is not None:
        recipe = networks.as_made_for(engines.load(call.engine), recipe)
    if recipe.data.val_fraction == "auto":
        recipe = recipes.override(recipe, {"data.val_fraction": VAL_FRACTION})
    dataset = load_dataset(call.data, recipe.data, report=listen)
    if not len(dataset["val"]):
        raise CallError(
            f"Trials are judged on validation images, and {dataset.name} has none.",
            "Hold some out with --set data.val_fraction=0.1.",
        )
    base, notes = fit_to_data(recipe, dataset)
    base, passes = _same_passes(base, len(dataset["train"]))
    axes = recipe.tune or space.default(base)
    space.check(base, axes)
    base = recipes.override(base, {"tune": {name: axis.model_dump(mode="json") for name, axis in axes.items()}})
    if call.recipe.data.val_fraction == "auto" and dataset.split_rule and "val_fraction" in dataset.split_rule:
        notes.append(
            f"{len(dataset['val']):,} images are held out for validation, more than the recipe would: "
            "differences between recipes are small. best.yaml has the recipe's own share again."
        )
    return Ground(base, passes, dataset.source, dataset.name, dataset.fingerprint, bool(len(dataset["test"])), [*notes])


def _same_passes(base: Recipe, images: int) -> tuple[Recipe, int]:
    """``min_steps`` as epochs, so that a trial with smaller batches makes as many passes as the others."""
    plan = steps_of(base, images)
    epochs = plan.steps / plan.steps_per_epoch
    if epochs > base.epochs + 0.5 / plan.steps_per_epoch:
        base = recipes.override(base, {"epochs": round(epochs, 4)})
    return recipes.override(base, {"min_steps": 0}), max(1, math.ceil(epochs - 1e-9))


# ---- the folder --------------------------------------------------------------------------------------------------


def _folder(call: Call, out: str | Path | None, ground: Ground) -> Path:
    if out is not None:
        folder = Path(out)
        ours = (folder / FILE).exists()
        if folder.exists() and not ours and (not folder.is_dir() or any(f.name != ".lock" for f in folder.iterdir())):
            raise RunExistsError(f"{folder} exists and holds no search.", "Name another folder with --out.")
        return folder
    if call.study is not None and call.storage is None:
        return paths.runs_folder() / f"tune-{call.study}"
    return runs.next_folder(f"tune-{call.study or f'{ground.name}-{call.recipe.name}'}")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = runs.lock(folder)
    except OSError as error:
        raise RunError(f"The folder {folder} can't be made: {error.strerror}.", "Name another with --out.") from None
    with held:
        yield


# ---- the search --------------------------------------------------------------------------------------------------


def _tune_in(folder: Path, call: Call, ground: Ground, listen: Listen) -> Tuning:
    where = call.storage or str((folder / storage.JOURNAL).absolute())
    name = call.study or _study_of(folder) or folder.absolute().name
    base = ground.base
    content = {
        "data": ground.fingerprint,
        "engine": call.engine,
        "recipe": base.model_dump(mode="json", exclude={"tune", "description"}),
        "space": base.model_dump(mode="json")["tune"],
    }
    with storage.quiet(), terminated_as_interrupted():
        study = storage.create(storage.open_storage(where), name, content, space.own_values(base, base.tune or {}))
        paths.write_whole(folder / RECIPE, base.to_yaml())
        kept = Kept(folder, call, ground, study, where)
        kept.write_status("running")
        requeued = storage.requeue_dead(study)
        setup = Setup(
            where, name, str(folder / RECIPE), ground.source, call.engine, call.device, ground.passes,
            # processes that share a study must not draw the same
            secrets.randbelow(2**31) if call.storage else base.seed + 1000 * len(study.get_trials(deepcopy=False)),
        )  # fmt: skip
        plan = Plan(base, call.trials, call.time_limit, call.seeds, call.slower, call.since, ground.has_test)
        pool = Pool(setup, call.workers, folder / LOGS)
        search = Search(plan, study, pool, listen)
        for note in [*ground.notes, *([f"{requeued} trials of dead processes are tried again."] if requeued else [])]:
            search.tell(note=note)
        try:
            with pool:
                search.run()
        except KeyboardInterrupt:
            kept.write_status("interrupted")
            done = len(records.completed(search.trials()))
            raise StoppedError(
                f"Stopped; every finished trial is kept, {done} of them trained to the end.",
                f"Go on with: {call.command} {kept.going_on()}",
            ) from None
        except BaseException:
            kept.write_status("failed")
            raise
        return kept.finish(search)


def _study_of(folder: Path) -> str | None:
    """The study that an earlier call kept here."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        name = json.loads((folder / FILE).read_text(encoding="utf-8")).get("study")
        return name if isinstance(name, str) else None
    return None
