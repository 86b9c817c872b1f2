"""Which configuration is the best for what, in rows and in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tenfold import words
from tenfold.benchmarking.records import FIGURES, FIRST, LATENCY, Benchmark, Configuration, Row


def best(rows: Sequence[Row], name: str) -> Row | None:
    """The row whose median of the figure is the best; None where none has it, or all the same."""
    known = [(value, row) for row in rows if row.status == "done" and (value := row.median(name)) is not None]
    if not known:
        return None
    if len(known) > 1 and len({value for value, _ in known}) == 1:
        return None
    choose = max if FIGURES[name].better == "higher" else min
    return choose(known, key=lambda pair: pair[0])[1]


def marked(result: Benchmark) -> set[tuple[str, str, int | None, str]]:
    """(subject, configuration, batch size, figure) of the best: images/s and latency for each batch size, and what is
    of the process among all. Nothing is the best of one."""
    found = set()
    for subject in result.subjects:
        rows = [r for r in result.rows if r.configuration.subject == subject.name]
        if len({r.configuration for r in rows if r.n}) < 2:
            continue
        for size in {r.batch_size for r in rows}:
            at = [r for r in rows if r.batch_size == size]
            for name in ("images_per_second", "decoded_images_per_second", *LATENCY[result.kind]):
                if row := best(at, name):
                    found.add((subject.name, str(row.configuration), size, name))
        last = whole(rows)
        for name in (FIRST[result.kind], "memory_bytes", "size_bytes", "epoch_seconds", "energy_wh", "cost"):
            if row := best(last, name):
                found.add((subject.name, str(row.configuration), None, name))
    return found


def whole(rows: Sequence[Row]) -> list[Row]:
    """For each configuration its row of the largest batch size, which has the figures of the whole process; of a
    training that of the fastest."""
    found: dict[Configuration, Row] = {}
    for row in rows:
        before = found.get(row.configuration)
        if row.n and (before is None or "step_p50_ms" not in row.figures or row.speed > before.speed):
            found[row.configuration] = row
    return list(found.values())


def sentence(result: Benchmark, subject: str) -> str:
    """Which to take for what: ``Lowest latency: …; most images/s: …``. Empty where only one was measured."""
    rows = [r for r in result.rows if r.configuration.subject == subject and r.n]
    if len({r.configuration for r in rows}) < 2:
        return ""
    smallest = min(r.batch_size or 0 for r in rows)
    middle, _, high = LATENCY[result.kind]
    parts: list[str] = []

    def say(what: str, row: Row | None, figures: Callable[[Row], str]) -> None:
        if row is not None:
            parts.append(f"{what}: {row.configuration} ({figures(row)})")

    say(
        f"{'Shortest step' if result.kind == 'training' else 'Lowest latency'} of "
        f"{'one image' if smallest == 1 else f'{smallest} images'}",
        best([r for r in rows if r.batch_size == smallest], high),
        lambda r: f"p99 {milliseconds(r.median(high))} ms, p50 {milliseconds(r.median(middle))} ms",
    )
    say(
        "most images/s",
        best(rows, "images_per_second"),
        lambda r: f"{r.speed:,.0f} in batches of {r.batch_size}",
    )
    last = whole(rows)
    first = FIRST[result.kind]
    say("first answer soonest" if result.kind == "inference" else "first step soonest", best(last, first),
        lambda r: words.seconds(r.median(first) or 0.0))  # fmt: skip
    say("smallest", best(last, "size_bytes"), lambda r: words.size(r.median("size_bytes")))
    return "; ".join(parts) + "." if parts else ""


def milliseconds(value: float | None) -> str:
    """Three digits that count: 0.671, 17.0, 114."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
