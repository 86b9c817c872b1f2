"""Where a study is kept: a journal file, or a database for several machines. Optuna's storages, opened and explained.

A trial that runs says in its attributes which process has it. When that process dies the trial is failed and queued
again, once: a database knows by heartbeats, a journal by looking for the process on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.errors import CallError, MissingExtraError, RunError, UnsupportedError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40
RETRIES = 1
OPENINGS = 2  # tries before the one whose error is told

# SQLAlchemy's name of the driver, its package, and what pip is asked for
DRIVERS = {
    "postgresql": ("psycopg", "psycopg[binary]"),
    "mysql": ("pymysql", "pymysql"),
}

# Attributes of a trial and of the study, as optuna-dashboard shows them.
WHERE, WHY, STOPPED, SECONDS, EPOCHS, ENDED, ROLE = "where", "why", "stopped", "seconds", "epochs", "ended", "role"
CONTENT, TEST_READS = "tenfold", "test_reads"


def require() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "tune", "Tuning")


def address(text: str) -> str:
    """What ``--storage`` names, checked without connecting: a database's address with its driver, or a file's path.

    Raises UnsupportedError for another kind of database, CallError where the driver is not installed.
    """
    scheme, sign, rest = text.partition("://")
    if not sign:
        return text
    kind, _, driver = scheme.lower().partition("+")
    kind = {"postgres": "postgresql", "mariadb": "mysql"}.get(kind, kind)
    if kind not in DRIVERS:
        raise UnsupportedError(
            f"--storage: {scheme}:// is no storage for trials.",
            "Take postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE, or a file's path for a journal.",
        )
    own, package = DRIVERS[kind]
    driver = driver or own
    if importlib.util.find_spec(driver) is None:
        wanted = package if driver == own else driver
        raise CallError(
            f"--storage {kind}:// needs the package {driver}, which is not installed.",
            f"Install it with: pip install '{wanted}'",
        )
    return f"{kind}+{driver}://{rest}"


def is_database(where: str) -> bool:
    return "://" in where


def without_password(where: str) -> str:
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", where)


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs Optuna says nothing of its own: what must be told is told by tenfold."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(where: str) -> BaseStorage:
    """The storage at an ``address``. RunError where it can't be reached or written."""
    if not is_database(where):
        return _journal(Path(where))
    for attempt in range(OPENINGS):
        with suppress(Exception):  # of two processes that make the tables in the same moment one fails
            return _database(where)
        time.sleep(0.5 * (attempt + 1))
    try:
        return _database(where)
    except Exception as error:  # of the driver, of SQLAlchemy, of Alembic: the address decides which
        lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        raise RunError(
            f"The storage {without_password(where)} can't be opened: {lines[0] if lines else type(error).__name__}",
            "Is the server there, and the database, and may this user create tables in it?",
        ) from None


def _database(where: str) -> BaseStorage:
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    return RDBStorage(
        where,
        # a connection that the server has closed meanwhile is made anew
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
    )


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

    lock = JournalFileOpenLock(str(path)) if os.name == "nt" else JournalFileSymlinkLock(str(path))
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"The journal {path} can't be used: {error}.", "Name another file or folder.") from None


def pruner(passes: int) -> Any:
    """Hyperband (Li et al. 2018) over passes: after 1, 3, 9 … the better third of a bracket goes on."""
    from optuna.pruners import HyperbandPruner, NopPruner

    return HyperbandPruner(min_resource=1, max_resource=passes, reduction_factor=3) if passes > 1 else NopPruner()


def sampler(seed: int, startup: int = 6) -> Any:
    """Multivariate TPE (Falkner et al. 2018). Fewer random trials than Optuna's ten come first: each of Hyperband's
    brackets has its own. Trials that still run count as bad, so that workers don't try the same."""
    from optuna.samplers import TPESampler

    return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=startup, seed=seed)


def create(storage: BaseStorage, name: str, content: Mapping[str, Any], first: Mapping[str, Any]) -> Study:
    """The study called ``name``, new or gone on with. ``content`` says what is searched on what: the same each time.

    ``first`` are the parameters of the first trial, the recipe itself. CallError where the name is taken by another
    search.
    """
    import optuna

    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    kept = study.user_attrs.get(CONTENT)
    if kept is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(CONTENT, dict(content))
        study.set_metric_names(["validation accuracy"])
        study.enqueue_trial(dict(first), user_attrs={ROLE: "recipe"}, skip_if_exists=True)
    elif kept != content:
        other = next((k for k in content if (kept or {}).get(k) != content[k]), "search")
        raise CallError(
            f"The study {name} there is of another {other}: its trials and these would not be alike.",
            "Name another study with --study, or another folder with --out.",
        )
    return study


def open_study(where: str, name: str, passes: int, seed: int) -> Study:
    """A worker's own view of a study that exists."""
    import optuna

    return optuna.load_study(storage=open_storage(where), study_name=name, sampler=sampler(seed), pruner=pruner(passes))


# ---- processes that died -------------------------------------------------------------------------------------


def here() -> str:
    """This process, as a running trial names it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _gone(where: str) -> bool:
    """Whether ``where`` names a process of this machine that is no more."""
    host, _, pid = where.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    with suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OSError):
            return True
    return False


def requeue_dead(study: Study) -> int:
    """Queues the trials of this machine's dead processes again; how many. Those of other machines are found by their
    heartbeats, where the storage has any."""
    import optuna

    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    dead = [t for t in running if _gone(str(t.user_attrs.get(WHERE, "")))]
    for trial in dead:
        give_back(study, trial, "its process died twice")
    optuna.storages.fail_stale_trials(study)
    return len(dead)


def give_back(study: Study, trial: FrozenTrial, why: str) -> None:
    """A trial whose process died is failed and queued again; one that was already, is failed for good."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    storage = study._storage
    retried = len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) >= RETRIES
    with suppress(UpdateFinishedTrialError):
        if retried:
            storage.set_trial_user_attr(trial._trial_id, WHY, why)
        if storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL):
            RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Those that count towards ``--trials``: under way, completed, pruned, and failed by themselves. Not those that
    were stopped from outside or whose process died: these are tried again, or were nobody's fault."""
    from optuna.trial import TrialState

    done = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in trials if t.state in done or (t.state == TrialState.FAIL and WHY in t.user_attrs)]
