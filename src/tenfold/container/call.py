"""What a SageMaker training job asks for, as words of ``tenfold train``: its hyperparameters and its data channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tenfold.data.listing import SPLIT_NAMES
from tenfold.data.sources import NAMES, TABLES
from tenfold.errors import CallError, UnknownNameError

OPTIONS = ("recipe", "epochs", "batch-size", "seed", "time-limit", "patience", "engine", "device")
DATA = "data"
MAX_SETTINGS_BYTES = 1 << 20


def words(root: Path) -> list[str]:
    """``tenfold train``'s words for the job in ``root``, without ``--out``. CallError for what can't be asked.

    Hyperparameters are options of tenfold train (``epochs``, ``time_limit`` or ``time-limit`` …), fields of the recipe
    (``optimizer.lr``), or ``data``: a dataset's name, or a path below /opt/ml/input/data.
    """
    _one_host(_settings(root / "input/config/resourceconfig.json"))
    given = _settings(root / "input/config/hyperparameters.json")
    channels = root / "input/data"
    options: dict[str, str] = {}
    changes: dict[str, str] = {}
    for key, value in given.items():
        if key.startswith(("sagemaker_", "_")):  # of SageMaker's own tools: the job's name, a tuner's objective
            continue
        name = key.replace("_", "-")
        text = _text(value)
        if name in OPTIONS or name == DATA:
            if options.setdefault(name, text) != text:
                raise CallError(f"The hyperparameter {key} is given twice, with different values.")
        else:
            _require_field(key)
            changes[key] = text
    if (file := channels / options.get("recipe", "")).is_file():
        options["recipe"] = str(file)
    data = options.pop(DATA, None)
    source = _below(channels, data) if data is not None else _channels(channels, used=options.get("recipe", ""))
    said = [f"--{name}={value}" for name, value in sorted(options.items())]
    return [*said, *(f"--set={key}={text}" for key, text in sorted(changes.items())), "--", source]


def _settings(path: Path) -> dict[str, Any]:
    """A JSON object of SageMaker's; empty where there is no such file, as when the image is tried by hand."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
        if len(data) > MAX_SETTINGS_BYTES:
            raise ValueError(f"more than {MAX_SETTINGS_BYTES:,} bytes")
        found = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise CallError(f"{path} can't be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise CallError(f"{path} holds no JSON object.")
    return found


def _one_host(resources: dict[str, Any]) -> None:
    hosts = resources.get("hosts")
    if isinstance(hosts, list) and len(hosts) > 1:
        raise CallError(
            f"The job has {len(hosts)} hosts; tenfold trains on one.", "Set the instance count to 1; take a larger one."
        )


def _text(value: Any) -> str:
    """A hyperparameter as it was meant: SageMaker makes strings of all, and some of its tools put JSON in those."""
    if not isinstance(value, str):
        return json.dumps(value)
    text = value.strip()
    if text.startswith('"'):
        try:
            return str(json.loads(text)).strip()
        except ValueError:
            pass
    return text


def _require_field(key: str) -> None:
    from tenfold import recipe

    known = [name for name, _ in recipe.fields()]
    if key not in known and not any(name.startswith(f"{key}.") for name in known):
        raise UnknownNameError("hyperparameter", key, [DATA, *(o.replace("-", "_") for o in OPTIONS), *known])


def _below(channels: Path, text: str) -> str:
    """A path that is given as it stands below the channels, or ``text`` itself where it names something else."""
    path = channels / text
    inside = text and path.resolve().is_relative_to(channels.resolve()) and path.exists()
    return str(path) if inside else text


def _channels(folder: Path, used: str) -> str:
    """The dataset that the channels are: one alone, or those named for splits together.

    ``used`` is the path of a file in a channel that is no data.
    """
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        names = []
    names = [name for name in names if not Path(used).is_relative_to(folder / name)]
    if not names:
        raise CallError(
            f"There is no data: {folder} holds no channel.",
            "Give the job a channel in File or FastFile mode, named training, or train, validation and test; or the "
            f"hyperparameter data, one of {', '.join(NAMES)}.",
        )
    if len(names) == 1:
        return str(_table(folder / names[0]))
    if not any(SPLIT_NAMES.get(name.casefold()) == "train" for name in names):
        raise CallError(
            f"Which channel holds the data? There are {', '.join(names)}.",
            "Name them train, validation and test, or say it with the hyperparameter data.",
        )
    return str(folder)


def _table(channel: Path) -> Path:
    """The CSV of paths and labels in a channel that holds one and no class folders, else the channel itself."""
    entries = [p for p in channel.iterdir() if not p.name.startswith(".")]
    tables = [p for p in entries if p.is_file() and p.suffix.lower() in TABLES]
    folders = [p for p in entries if p.is_dir()]
    return tables[0] if len(tables) == 1 and len(folders) < 2 else channel
