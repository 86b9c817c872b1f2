"""``tenfold show``: samples of each class as a picture, and the class counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from tenfold.cli import render
from tenfold.cli.geometry import Changes, RecipeName, data_settings
from tenfold.cli.options import AsJson, Data
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.data.dataset import Dataset

CLASSES = 60  # rows of the table; the sheet and the JSON have more
SKIPPED = 8
BAR = 24


def show(
    data: Data = "digits",
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Draw train, val or test.")] = "train",
    per_class: Annotated[int, typer.Option("--per-class", metavar="N", min=1, max=50, help="Samples of each.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The PNG file to write.", show_default="NAME-samples.png"),
    ] = None,
    recipe: RecipeName = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Draw samples of each class and count the classes.

    The pictures are drawn as training gets them: at its size, by its resize policy.
    """
    from tenfold.data import load_dataset

    if out is not None and out.suffix.lower() != ".png":
        raise CallError(f"--out {out}: the sheet is a PNG file.", f"Try --out {out.with_suffix('.png')}")
    with render.progress() as report:
        dataset = load_dataset(data, data_settings(recipe, changes), report=report)
    path = _draw_sheet(dataset, out or Path(f"{dataset.name}-samples.png"), split, per_class)
    if as_json:
        render.print_json({**facts(dataset), "sheet": str(path)})
    else:
        _draw(dataset, path)


def _draw_sheet(dataset: Dataset, path: Path, split: str, per_class: int) -> Path:
    from tenfold.data.sheet import draw
    from tenfold.paths import write_whole

    if not len(dataset[split]):
        raise CallError(f"Split {split} of {dataset.name} is empty.", "Draw another with --split.")
    content = draw(dataset, split=split, per_class=per_class)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise CallError(f"{path} can't be written: {error.strerror}.", "Name another file with --out.") from None
    return path


def facts(dataset: Dataset) -> dict[str, Any]:
    """What --json says of a dataset."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "geometry": dataset.geometry.to_dict(),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "classes": list(dataset.classes),
        "counts": {name: dataset.counts(name).tolist() for name in dataset.splits},
        "split_rule": dict(dataset.split_rule) if dataset.split_rule else None,
        "mirror": dataset.mirror,
        "fingerprint": dataset.fingerprint,
        "skipped": [{"path": s.path, "reason": s.reason} for s in dataset.skipped],
        "notes": list(dataset.notes),
    }


def _draw(dataset: Dataset, path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    splits = [name for name, split in dataset.splits.items() if len(split)]
    counts = {name: dataset.counts(name) for name in splits}
    totals = np.sum(list(counts.values()), axis=0)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Class", overflow="ellipsis", max_width=40)
    for name in [*splits, *(["all"] if len(splits) > 1 else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row, label in enumerate(dataset.classes[:CLASSES]):
        cells = [f"{counts[name][row]:,}" for name in splits]
        cells += [f"{totals[row]:,}"] if len(splits) > 1 else []
        bar = "━" * max(1, round(BAR * totals[row] / totals.max())) if totals[row] else ""
        table.add_row(render.printable(label), *cells, Text(bar, style="blue"))
    if len(dataset.classes) > CLASSES:
        table.add_row(f"and {len(dataset.classes) - CLASSES:,} more")
    table.add_section()
    table.add_row("all", *(f"{len(dataset[name]):,}" for name in splits), *([f"{totals.sum():,}"] * (len(splits) > 1)))
    render.show(table, "", *_lines(dataset), f"Samples: {render.printable(str(path))}")


def _lines(dataset: Dataset) -> list[str]:
    geometry = dataset.geometry
    source = "" if dataset.source == dataset.name else f" from {dataset.source}"
    lines = [f"{dataset.name}{source}: {geometry.height}×{geometry.width} pixels, resize={geometry.resize}"]
    if dataset.split_rule:
        lines.append(f"Splits: {_rule(dataset.split_rule)}")
    lines += dataset.notes
    lines += [f"Left out: {s.path}: {s.reason}" for s in dataset.skipped[:SKIPPED]]
    if len(dataset.skipped) > SKIPPED:
        lines.append(
            f"and {len(dataset.skipped) - SKIPPED:,} more; --json lists all, tenfold check shows what is wrong."
        )
    return [render.printable(line) for line in lines]


def _rule(rule: Any) -> str:
    """``{"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1}`` in words."""
    shares = [(what, rule.get(f"{what}_fraction")) for what in ("val", "test")]
    made = " and ".join(f"{100 * share:g} % for {what}" for what, share in shares if share)
    return f"{made} by the rule {rule['rule']}, seed {rule['seed']}"
