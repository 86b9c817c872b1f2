"""The page of a profile: one HTML file without script or outside address, in the style of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tenfold.evaluation import frame, svg
from tenfold.evaluation.frame import tile
from tenfold.profiling import strip
from tenfold.profiling.records import Profile
from tenfold.words import percent, rate, seconds, seconds_fine, size

PAGE = "profile.html"
ROWS = 40  # operations in the table
COLORS = {
    "data": "p4", "decode": "p4", "host": "p1", "copy": "p1", "device": "p3", "model": "p3", "idle": "p6",
    "answers": "p2",
}  # fmt: skip


def html(found: Profile) -> str:
    sections = [
        ("parts", f"Where a {found.unit} goes", _parts(found)),
        ("kinds", "What the device computes" if found.kind == "training" else "What the model computes", _kinds(found)),
        ("timeline", f"The first {'steps' if found.kind == 'training' else 'batches'}", _timeline(found)),
        ("operations", "Operations" if found.kind == "training" else "Nodes of the graph", _operations(found)),
        ("training", "The training of this model", _phases(found)),
        ("facts", "How it was measured", _facts(found)),
    ]
    recipe = f"recipe {found.recipe['name']}" if found.recipe else "prediction"
    lead = [recipe, found.computed_by, found.device_label, found.precision, frame.when(found.created)]
    head = _tiles(found) + frame.notes(found.notes)
    version = found.versions["tenfold"]
    return frame.page(f"Profile of {found.name}", lead, sections, head=head, version=version, style=strip.STYLE)


# ---- head ----------------------------------------------------------------------------------------------------


def _tiles(found: Profile) -> str:
    low, high = found.images / found.seconds_highest, found.images / found.seconds_lowest
    tiles = [
        tile(
            "images a second",
            f"{found.images_per_second:,.0f}",
            f"{low:,.0f} to {high:,.0f}, without the profiler",
            "first",
        ),
        tile(f"a {found.unit}", seconds(found.seconds), f"{found.images:,} images of {found.pixels} pixels"),
        tile("device" if found.kind == "training" else "model", percent(_busy(found), 0), f"of a {found.unit}’s time"),
        tile("peak memory", size(found.memory_bytes), found.device),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _busy(found: Profile) -> float:
    return found.share("device" if found.kind == "training" else "model")


# ---- sections ------------------------------------------------------------------------------------------------


def _parts(found: Profile) -> str:
    bars = "".join(
        f'<i class="{COLORS.get(p.key, "p5")}" style="flex: {100 * found.share(p.key):.4f}"></i>' for p in found.parts
    )
    keys = "".join(
        f'<span><i class="{COLORS.get(p.key, "p5")}"></i>{escape(p.name)} {seconds_fine(p.seconds)} '
        f"({percent(p.seconds / max(found.whole, 1e-12), 1)})</span>"
        for p in found.parts
    )
    advice = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.advice)
    return f'<div class="card"><div class="phases">{bars}</div><div class="key">{keys}</div><ul>{advice}</ul></div>'


def _kinds(found: Profile) -> str:
    rows = "".join(
        f"<tr><td>{escape(c.name)}</td><td>{seconds_fine(c.seconds)}</td><td>{percent(c.share, 1)}</td>"
        f'<td class="bars">{svg.bar(min(1.0, c.share), None)}</td></tr>'
        for c in found.kinds
    )
    if not rows:
        return ""
    return (
        f'<div class="card scroll"><table><thead><tr><th>kind</th><th>a {found.unit}</th><th>share of it</th><th></th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _timeline(found: Profile) -> str:
    drawn = strip.draw(found.timeline)
    if not drawn:
        return ""
    trace = (
        '<p class="soft small">A row for each thread or queue, with the profiler on. All of it: trace.json.gz, which '
        "opens in ui.perfetto.dev or chrome://tracing.</p>"
    )
    return f'{trace}<figure class="card scroll">{drawn}</figure>'


def _operations(found: Profile) -> str:
    rows = "".join(
        f"<tr><td>{escape(o.name)}</td><td class='l'>{escape(o.kind)}</td><td>{o.calls:,.4g}</td>"
        f"<td>{seconds_fine(o.seconds)}</td><td>{percent(o.share, 1)}</td></tr>"
        for o in found.operations[:ROWS]
    )
    if not rows:
        return ""
    more = len(found.operations) - ROWS
    below = f'<p class="soft small">{more:,} more are in profile.json.</p>' if more > 0 else ""
    return (
        '<div class="card scroll tall"><table><thead><tr><th>name</th><th class="l">kind</th>'
        f"<th>calls a {found.unit}</th><th>own time</th><th>share</th></tr></thead><tbody>{rows}</tbody></table></div>"
        + below
    )


def _phases(found: Profile) -> str:
    if not found.phases:
        return ""
    phases: Sequence[tuple[str, float]] = [(k, v) for k, v in found.phases.items() if k != "total"]
    bars = "".join(f'<i class="p{i % 7}" style="flex: {max(v, 0):.6f}"></i>' for i, (_, v) in enumerate(phases))
    keys = "".join(f'<span><i class="p{i % 7}"></i>{escape(k)} {seconds(v)}</span>' for i, (k, v) in enumerate(phases))
    total = f'<p class="soft small">{seconds(found.phases["total"])} in all.</p>' if "total" in found.phases else ""
    return f'<div class="card"><div class="phases">{bars}</div><div class="key">{keys}</div>{total}</div>'


def _facts(found: Profile) -> str:
    h = found.hardware
    with_profiler = f"{seconds(found.profiled)} a {found.unit}, {rate(found.images / max(found.profiled, 1e-12))}"
    facts = [
        ("profiled", f"{found.units} {'steps' if found.kind == 'training' else 'batches'}, by {found.profiler}"),
        ("with the profiler" if found.kind == "training" else "one part after the other", with_profiler),
        ("without", f"{seconds(found.seconds)} a {found.unit}, {rate(found.images_per_second)}"),
        ("machine", f"{h['cores']} cores of {h['cpu']}, {size(h['memory_bytes'])}, {h['system']}"),
        ("device", f"{found.device}: {found.device_label}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
        ("command", found.command),
    ]
    rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in facts if v)
    return f'<div class="card"><table class="facts"><tbody>{rows}</tbody></table></div>'
