"""``tenfold recipes``: the shipped recipes, one of them whole, or the reference of all fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold.cli import render
from tenfold.cli.options import AsJson
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.recipe import Recipe


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A recipe's name or YAML file, to print whole.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of NAME first; repeatable."),
    ] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="Print the reference of every recipe field, as Markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the recipes, or print one as YAML with what each field means.

    What is printed is a recipe file: write tenfold recipes quick > mine.yaml, edit it, then train with
    --recipe mine.yaml.
    """
    if name and fields:
        raise CallError("NAME and --fields can't be given together.")
    if changes and not name:
        raise CallError("--set changes a recipe: give its name too.", "tenfold recipes lists the names.")
    if fields:
        _print_fields(as_json)
    elif name:
        _print_one(name, changes or [], as_json)
    else:
        _print_table(as_json)


def _print_table(as_json: bool) -> None:
    from tenfold import recipe as store

    found = {name: store.load(name) for name in store.presets()}
    found = dict(sorted(found.items(), key=lambda item: _effort(item[1])))
    if as_json:
        values = [{"name": n, "description": r.description, "recipe": _data(r)} for n, r in found.items()]
        return render.print_json({"recipes": values})
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Recipe", style="bold", no_wrap=True)
    for title in ("Network", "Optimizer"):
        table.add_column(title, no_wrap=True)
    for title in ("Epochs", "Batch"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("What it is for")
    for preset, value in found.items():
        widths = "/".join(map(str, value.model.widths or ()))
        cells = (
            f"{value.model.name} {widths}",
            value.optimizer.name,
            f"{value.epochs:g}",
            f"{value.batch_size:,}",
        )
        table.add_row(preset, *cells, value.description)
    render.show(
        table,
        "",
        "auto, the default of tenfold train, takes quick on a CPU and sprint on a GPU, and finetune for a network of "
        "another library.",
        "tenfold recipes NAME prints one whole; tenfold recipes --fields explains every field.",
    )
    return None


def _effort(value: Recipe) -> tuple[bool, float]:
    """An order from light to heavy for the table, epochs times the widest stage, and fine-tuning after it."""
    return value.finetune is not None, value.epochs * max(value.model.widths or (64,))


def _print_one(name: str, changes: list[str], as_json: bool) -> None:
    from tenfold import recipe as store
    from tenfold.cli.recipe_text import WIDTH, annotated

    value = store.load(name)
    if changes:
        value = store.override(value, dict(map(store.parse_set, changes)))
    if as_json:
        return render.print_json({"name": value.name, "description": value.description, "recipe": _data(value)})
    output = render.output()
    if not output.is_terminal:
        return print("\n".join(map(str, annotated(value))))
    from rich.text import Text

    for line in annotated(value, min(output.width, WIDTH)):
        text = Text(str(line), no_wrap=True, overflow="ignore")
        start = str(line).find("# ")
        if start >= 0:
            text.stylize("dim", start)
        if line.changed:
            text.stylize("bold", 0, len(line.text))
        output.print(text, soft_wrap=True)
    return None


def _print_fields(as_json: bool) -> None:
    from tenfold.cli.recipe_text import notes, reference

    if as_json:
        values = {n.name: {"default": n.default, "values": n.values, "meaning": n.meaning} for n in notes().values()}
        render.print_json({"fields": values})
    else:
        print(reference(), end="")


def _data(value: Recipe) -> dict[str, Any]:
    return value.model_dump(mode="json")
