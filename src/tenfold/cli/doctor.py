"""``tenfold doctor``: what this machine has, what is missing, and the command that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import AsJson

Row = tuple[str, str, str]  # what, its state, a style for the state

GOOD, MISSING, BROKEN = "green", "yellow", "bold red"


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, what is missing, and how to get it.

    Leaves with exit code 1 only where something installed is broken; what is merely missing is no failure.
    """
    from tenfold.cli.diagnosis import diagnose

    found = diagnose()
    if as_json:
        render.print_json(found)
    else:
        _draw(found)
    if not found["ok"]:
        raise typer.Exit(1)


def _draw(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    sections = {
        "Machine": list(_machine(found)),
        "Training": list(_engines(found)),
        "Predicting": list(_runtimes(found)),
        "Packages": list(_packages(found)),
        "Data": list(_data(found)),
        "Places": list(_places(found)),
    }
    width = 2 + max(len(what) for rows in sections.values() for what, _, _ in rows)
    for title, rows in sections.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(width=width)
        table.add_column(overflow="fold")
        for what, state, style in rows:
            table.add_row(Text(f"  {what}"), Text(render.printable(state), style=style))
        render.show(Text(title, style="bold"), table, "")
    if not found["advice"]:
        return render.show(Text("Nothing is missing.", style=GOOD))
    render.show(Text("What is missing, and what brings it", style="bold"))
    for item in found["advice"]:
        render.show(Text(f"  {render.printable(item['problem'])}"))
        render.output().print(Text(f"    {item['command']}", style="cyan"), soft_wrap=True)
    return None


def _machine(found: dict[str, Any]) -> Iterator[Row]:
    system = found["system"]
    yield "tenfold", f"{found['tenfold']} on Python {found['python']['version']}", ""
    yield "", found["python"]["path"], "dim"
    yield "system", f"{system['system']} ({system['machine']})", ""
    yield "processor", f"{system['cpu']}, {words.count(system['cores'], 'core')} usable", ""
    if system["cpu_features"] is not None:
        yield "", _features(system["cpu_features"]), ""
    for name, value in system["threads_set"].items():
        yield "", f"{name}={value} limits the threads", MISSING
    available = system["memory_available_bytes"]
    free = f", {words.size(available)} available" if available is not None else ""
    yield "memory", f"{words.size(system['memory_bytes'])}{free}", ""


def _features(features: dict[str, bool]) -> str:
    names = {"amx_bf16": "AMX", "avx512": "AVX-512", "avx2": "AVX2", "avx512_bf16": "AVX-512 bf16"}
    present = [names.get(n, n) for n, there in features.items() if there]
    text = ", ".join(present) or "no vector instructions known"
    if features.get("amx_bf16"):
        return f"{text}: bf16 is fast here, precision=auto takes it"
    return f"{text}; no fast bf16: precision=auto trains in fp32"


def _engines(found: dict[str, Any]) -> Iterator[Row]:
    for name, engine in found["engines"].items():
        if engine["state"] == "missing":
            yield name, "not installed", MISSING
        elif engine["state"] == "broken":
            yield name, f"broken: {engine['error']}", BROKEN
        else:
            versions = dict(engine["versions"])
            own = versions.pop(name, "")
            shown = [own] * bool(own) + [f"{n} {v}" for n, v in versions.items()]
            yield name, f"{', '.join(shown)}, imported in {words.seconds(engine['seconds'])}", GOOD
            for device in engine["devices"]:
                memory = f", {words.size(device['memory_bytes'])}" if device["memory_bytes"] else ""
                yield f"  {device['name']}", f"{device['label']}{memory}", ""
    for card in found["system"]["gpus"]:
        yield "driver", f"{ {'nvidia': 'NVIDIA', 'amd': 'AMD', 'apple': 'Apple'}[card] } loaded", ""


def _runtimes(found: dict[str, Any]) -> Iterator[Row]:
    for name, runtime in found["runtimes"].items():
        if runtime["state"] == "broken":
            yield name, f"broken: {runtime['error']}", BROKEN
        else:
            providers = ", ".join(p.removesuffix("ExecutionProvider") for p in runtime["providers"])
            yield name, f"{runtime['version']} ({providers})", GOOD


def _packages(found: dict[str, Any]) -> Iterator[Row]:
    there = ", ".join(f"{n} {v}" for n, v in found["packages"].items() if v is not None)
    yield "needed", there or "unknown: tenfold runs without being installed", "" if there else MISSING
    if found["missing_packages"]:
        yield "", f"missing: {', '.join(found['missing'])}", BROKEN
    for name, extra in found["extras"].items():
        shown = ", ".join(f"{n} {v}" if v else f"{n} missing" for n, v in extra["packages"].items())
        yield f"[{name}]", shown, GOOD if extra["installed"] else MISSING


def _data(found: dict[str, Any]) -> Iterator[Row]:
    for name, place in found["data"]["datasets"].items():
        yield name, place or "not here", GOOD if place else MISSING
    for folder in found["data"]["folders"]:
        yield "looked in", folder["path"] + ("" if folder["exists"] else " (no such folder)"), "dim"


def _places(found: dict[str, Any]) -> Iterator[Row]:
    for kind in ("cache", "runs"):
        place = found[kind]
        more = "" if place["counted_all"] else "more than "
        inside = f"{more}{words.size(place['size_bytes'])}" if place["exists"] else "not there yet"
        free = f"{words.size(place['free_bytes'])} free" if place["writable"] else "not writable"
        yield kind, f"{place['path']}  {inside}, {free}", "" if place["writable"] else BROKEN
