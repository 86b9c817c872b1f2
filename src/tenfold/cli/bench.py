"""``tenfold bench``: a trained model in every runtime, device, precision and batch size; machines side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import OUT, ResultAsJson, duration, names_of
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.benchmarking.records import Benchmark, Trial
    from tenfold.benchmarking.sides import Sides

COMPARE = "compare"
WHAT, TRAINING, HOW = "What is measured", "Training, with --train", "How"


def bench(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN…",
            help="Folders of runs (with their exports), bundles or exported artifacts, or a model.onnx. Or: compare, "
            "and two or more bench.json files or their folders.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            rich_help_panel=TRAINING,
            show_default=False,
            help="Measure training steps on this data instead: a dataset's name, a folder, or a CSV.",
        ),
    ] = None,
    engines: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=TRAINING, help="With commas between (default: all installed)."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME|FILE", rich_help_panel=TRAINING, help="Whose network (default: quick)."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", rich_help_panel=TRAINING, help="Change any field of the recipe."),
    ] = None,
    price_per_hour: Annotated[
        str | None,
        typer.Option(
            metavar="PRICE",
            rich_help_panel=TRAINING,
            help="Of the machine, or of each device: 2.5, or cpu=0.05,cuda=2.5.",
        ),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=WHAT, help="With commas between (default: all installed)."),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=WHAT,
            help="Such as cpu,cuda (default: all each runtime has here).",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=WHAT,
            help="Of fp32,bf16,fp16,int8 (default: what the device computes in natively).",
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", rich_help_panel=WHAT, help="Images a call (default: 1,8,64; a sweep with --train)."
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", rich_help_panel=WHAT, help="Cores that may be used, 1,2,4 (default: all)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            rich_help_panel=WHAT,
            show_default=False,
            help="Other data than the model's own for accuracy: a dataset's name, a folder, or a CSV.",
        ),
    ] = None,
    test_images: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=WHAT, help="Test images for accuracy; 0 for none (default: 2000)."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=HOW, help="Processes of each configuration (default: 3)."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", rich_help_panel=HOW, help="Of measuring for each batch size in each process (default: 0.5)."
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            rich_help_panel=HOW,
            help="Begin no round that would not end in it: 90s, 10m, 1h (default: 2m).",
        ),
    ] = None,
    any_model: Annotated[
        bool, typer.Option("--any-model", rich_help_panel=HOW, help="With compare: figures of different models too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=OUT,
            show_default=False,
            help="The folder (default: runs/bench-<name>-<n>). A benchmark that was stopped goes on there.",
        ),
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Measure a trained model in every runtime, device, precision and batch size that this machine has.

    Told are throughput, latency (p50, p90, p99), the first answer from a cold process, memory, size and accuracy. Each
    configuration runs in processes of its own, in turn with the others; 'tenfold bench compare A B' sets the results of
    several machines side by side.

    With --train DATA it is training that is measured, in every engine, device and precision: the time of a step at
    growing batch sizes, until a larger one is no faster or does not fit the memory.

    Exit code 1 where nothing could be measured, or where a runtime failed, answered wrongly or fell back to another
    device.
    """
    common = {
        "devices": names_of(devices, "--devices"),
        "precisions": names_of(precisions, "--precisions"),
        "batch_sizes": _numbers(batch_sizes, "--batch-sizes"),
        "rounds": rounds,
        "seconds": seconds,
        "time_limit": _seconds(time_limit),
    }
    of_models = {
        "runtimes": names_of(runtimes, "--runtimes"),
        "threads": _numbers(threads, "--threads"),
        "data": data,
        "test_images": test_images,
    }
    of_training = {
        "engines": names_of(engines, "--engines"),
        "recipe": recipe,
        "set": changes or None,
        "price_per_hour": price_per_hour,
    }
    if train is not None:
        if runs:
            raise CallError(f"--train measures training, and {runs[0]} is a model.", "Call tenfold bench twice.")
        _refuse(of_models | {"any_model": any_model or None}, "is for models; --train measures training.")
        _measure(train, common | _recipe_of(of_training) | {"out": out}, as_json, training=True)
        return
    _refuse(of_training, "is for training.", "Name the data with --train DATA.")
    if not runs:
        raise CallError("Nothing to measure is named.", "tenfold bench RUN, or tenfold bench --train DATA.")
    if runs[0] == COMPARE:
        _refuse(of_models | common, "is for measuring; compare reads what was measured.")
        _compare(runs[1:], any_model, out, as_json)
        return
    _refuse({"any_model": any_model or None}, "is for tenfold bench compare.")
    _measure(runs, common | of_models | {"out": out}, as_json)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: Mapping[str, Any], why: str, hint: str | None = None) -> None:
    """CallError for the first of the options that was given."""
    for name in _given(options):
        raise CallError(f"--{name.replace('_', '-')} {why}", hint)


def _recipe_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of training as the work takes them."""
    from tenfold.cli.compare import price
    from tenfold.cli.options import overrides_of

    return {
        "engines": options["engines"],
        "recipe": options["recipe"],
        "overrides": overrides_of(options["set"] or [], {}) or None,
        "price_per_hour": price(options["price_per_hour"]),
    }


def _numbers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise CallError(f"{option} {text!r}: not whole numbers above 0.", "Write them with commas between: 1,8,64.")
    return [int(word) for word in words]


def _seconds(text: str | None) -> float | None:
    return None if text is None else duration(text)


# ---- measuring -------------------------------------------------------------------------------------------------------


def _measure(what: list[str] | str, options: dict[str, Any], as_json: bool, training: bool = False) -> None:
    work: Callable[..., Benchmark]
    if training:
        from tenfold.benchmarking.training import bench_training as work
    else:
        from tenfold.benchmarking.work import bench as work

    with render.progress() as report:
        result = work(what, listen=_teller(report), **_given(options))
    if as_json:
        render.print_json({**result.to_dict(), "path": str(result.path)})
    else:
        from tenfold.cli import bench_tables

        bench_tables.show(result)
    _places(result.path, "bench")
    if not result.ok:
        raise typer.Exit(1)


def _teller(report: Callable[[Any], None]) -> Callable[[Any], None]:
    """A line on standard error for each measurement that has ended; what is under way in between."""
    from tenfold.benchmarking.work import Ended, Started

    def tell(event: Any) -> None:
        if isinstance(event, Started):
            return
        if isinstance(event, Ended):
            kept = ", measured before" if event.kept else ""
            line = f"[{event.number}/{event.total}] {_sentence(event.trial)}{kept}"
            print(render.printable(line).replace("\n", " "), file=sys.stderr, flush=True)
        else:
            report(event)

    return tell


def _sentence(trial: Trial) -> str:
    who = str(trial.configuration)
    if trial.status != "done":
        return f"{who}: {trial.status}: {trial.why}"
    speeds = [f for f in trial.by_batch.values() if f.get("images_per_second")]
    most = max((f["images_per_second"] for f in speeds), default=0.0)
    return f"{who}: {words.rate(most)} at most, in {words.seconds(trial.seconds or 0.0)}"


def _places(folder: Path | None, name: str) -> None:
    if folder is None:
        return
    console = render.console()
    if (folder / f"{name}.png").exists():
        console.print(f"Plot     {render.printable(str(folder / f'{name}.png'))}", soft_wrap=True)
    console.print(f"Figures  {render.printable(str(folder / f'{name}.json'))}", soft_wrap=True)


# ---- side by side ----------------------------------------------------------------------------------------------------


def _compare(files: list[str], any_model: bool, out: Path | None, as_json: bool) -> None:
    from tenfold.benchmarking import sides

    found = sides.compare(files, any_model=any_model)
    folder = _write(found, out)
    if as_json:
        render.print_json({**found.to_dict(), "path": str(folder)})
    else:
        from tenfold.cli import bench_tables

        bench_tables.show_sides(found)
    _places(folder, COMPARE)


def _write(found: Sides, out: Path | None) -> Path:
    """compare.json and the picture, in a folder."""
    import importlib.util
    import json

    from tenfold import paths
    from tenfold.errors import RunError
    from tenfold.run import next_folder, results_folder

    folder = out if out is not None else next_folder("bench-compare")
    with results_folder(folder, f"{COMPARE}.json", "comparison of benchmarks"):
        try:
            text = json.dumps(render.plain(found.to_dict()), indent=1, ensure_ascii=False, allow_nan=False)
            paths.write_whole(folder / f"{COMPARE}.json", text + "\n")
            if importlib.util.find_spec("matplotlib") is not None:
                from tenfold.benchmarking import plot

                for kind, content in plot.draw(*found.benchmarks, names=found.names).items():
                    paths.write_whole(folder / f"{COMPARE}.{kind}", content)
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}.") from None
    return folder
