"""The page of a search: one HTML file without script or outside address, in the style of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tenfold.evaluation import frame
from tenfold.evaluation.frame import tile
from tenfold.evaluation.metrics import wilson
from tenfold.paths import write_whole
from tenfold.tuning import charts
from tenfold.tuning.importance import LEAST, TOP
from tenfold.tuning.records import Confirmed, Trial, Tuning
from tenfold.words import percent, seconds, size

PAGE = "tune.html"
ROWS = 200  # trials in the table


def write(result: Tuning) -> Path:
    write_whole(result.page, html(result))
    return result.page


def html(result: Tuning) -> str:
    sections = [
        ("confirmed", "Confirmed", _confirmed(result)),
        ("history", "History", _history(result)),
        ("importance", "Importance", _importance(result)),
        ("slices", "Slices", _slices(result)),
        ("trials", "Trials", _trials(result)),
        ("recipe", "The recipe to train with", _recipe(result)),
        ("search", "The search", _facts(result)),
    ]
    lead = [result.data, f"recipe {result.recipe['name']}", result.engine, result.device, frame.when(result.created)]
    head = _tiles(result) + frame.notes(result.notes)
    return frame.page(result.study, lead, sections, head=head, version=result.versions["tenfold"])


# ---- head ----------------------------------------------------------------------------------------------------


def _tiles(result: Tuning) -> str:
    tiles = []
    won, trial = result.winning(), result.trial()
    if won is not None and won.mean is not None and won.span is not None:
        under = f"{percent(won.span[0])} to {percent(won.span[1])}, {_seeds(won)}; {won}"
        tiles.append(tile("winner, validation accuracy", percent(won.mean), under, "first"))
    elif trial is not None:
        tiles.append(tile("best trial, not confirmed", percent(trial.value), f"{trial}, one seed", "first"))
    if result.gain is not None and not result.recipe_won:
        alone = won is not None and len(won.accuracies) < 2
        word = "more than the seeds’ spread" if result.clear else "by one seed" if alone else "within the seeds’ spread"
        tiles.append(tile("better than the recipe by", f"{100 * result.gain:.2f} points", word))
    if result.test is not None:
        n = result.test["n"]
        low, high = wilson(round(result.test["accuracy"] * n), n)
        tiles.append(
            tile("test accuracy", percent(result.test["accuracy"]), f"{percent(low)} to {percent(high)}, {n:,} images")
        )
    counts = result.counts()
    under = ", ".join(f"{count} {state}" for state, count in counts.items())
    tiles.append(tile("trials", f"{len(result.trials):,}", under))
    limit = f"of {seconds(result.time_limit)}" if result.time_limit else "this call"
    tiles.append(tile("time", seconds(result.seconds["total"]), limit))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _seeds(one: Confirmed) -> str:
    return f"{len(one.accuracies)} seed" + ("" if len(one.accuracies) == 1 else "s")


# ---- sections ------------------------------------------------------------------------------------------------


def _confirmed(result: Tuning) -> str:
    able = [c for c in result.confirmed if c.accuracies]
    if not able:
        return ""
    seeds = sorted({seed for c in able for seed in c.accuracies})
    head = "".join(f"<th>seed {seed}</th>" for seed in seeds)
    rows = ""
    for c in able:
        cells = "".join(f"<td>{percent(c.accuracies.get(seed))}</td>" for seed in seeds)
        mark = " (winner)" if c.number == result.number else ""
        rows += (
            f"<tr><td>{escape(str(c) + mark)}</td><td>{percent(c.searched)}</td>{cells}"
            f"<td><b>{percent(c.mean)}</b></td>"
            f"<td>{c.epochs or 0:g}</td><td>{seconds(c.mean_seconds() or 0.0)}</td></tr>"
        )
    return (
        '<p class="soft small">Each candidate is trained again with seeds that the search has not used, and judged on '
        "the validation images. What the search itself measured is the luckiest of many trials, and so too high.</p>"
        f'<div class="card scroll"><table><thead><tr><th>candidate</th><th>in the search</th>{head}<th>mean</th>'
        f"<th>epochs</th><th>training</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _history(result: Tuning) -> str:
    cards = [charts.history(result.trials, result.number), charts.curves(result.trials, result.number)]
    if not cards[0]:
        return ""
    return (
        '<p class="soft small">Blue: trained to the end; grey: pruned or stopped, where it was cut; orange: the '
        "winner. The line is the best so far. What lies far below the rest stands at the foot.</p>"
        + "".join(f'<figure class="card" style="margin-bottom:1rem">{c}</figure>' for c in cards if c)
    )


def _importance(result: Tuning) -> str:
    if not result.importance:
        return f'<p class="soft small">Fewer than {LEAST} trials have ended: too few to say which fields mattered.</p>'
    return (
        f'<p class="soft small">A field’s share in whether a trial comes among the best {100 * TOP:.0f} % (PED-ANOVA). '
        "A pruned trial counts as worse than each that was trained to the end. With few trials this is rough.</p>"
        f'<figure class="card">{charts.bars(result.importance)}</figure>'
    )


def _slices(result: Tuning) -> str:
    order = [*result.importance, *(name for name in result.space if name not in result.importance)]
    found = [charts.slice_of(n, result.space[n], result.trials, result.number) for n in order if n in result.space]
    cards = "".join(f'<figure class="card">{c}</figure>' for c in found if c)
    return f'<div class="row">{cards}</div>' if cards else ""


def _trials(result: Tuning) -> str:
    names = list(result.space)
    ordered = sorted(result.trials, key=_rank)[:ROWS]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ""
    for t in ordered:
        cells = "".join(f"<td>{escape(shown(t.params.get(name)))}</td>" for name in names)
        state = t.state + (f": {t.why}" if t.why else "")
        rows += (
            f"<tr><td>{escape(str(t))}</td><td>{percent(t.value)}</td>"
            f'<td class="l">{escape(state)}</td><td>{"" if t.epochs is None else f"{t.epochs:.3g}"}</td>'
            f"<td>{'' if t.seconds is None else seconds(t.seconds)}</td>{cells}</tr>"
        )
    return (
        '<div class="card scroll tall"><table><thead><tr><th>trial</th><th>val accuracy</th><th class="l">state</th>'
        f"<th>epochs</th><th>training</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _rank(trial: Trial) -> tuple[bool, float, int]:
    return trial.state != "complete", -(trial.value or 0.0), trial.number


def shown(value: Any) -> str:
    """A field's value, short."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _recipe(result: Tuning) -> str:
    if result.best is None:
        return ""
    text = result.best.read_text(encoding="utf-8")
    return f'<pre class="tall">{escape(text)}</pre>'


def _facts(result: Tuning) -> str:
    h = result.hardware
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in result.seconds.items() if value >= 0.05)
    facts: Sequence[tuple[str, str]] = [
        ("study", f"{result.study} in {result.storage}"),
        ("sampler", "multivariate TPE, 6 random trials first; Hyperband on epochs, a third goes on"),
        ("workers", str(result.workers)),
        ("seconds", phases),
        ("test split read", f"{result.test_reads} times" if result.test_reads != 1 else "once"),
        ("machine", f"{h['cores']} cores of {h['cpu']}, {size(h['memory_bytes'])}, {h['system']}; {result.device}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
        ("go on", result.command),
    ]
    rows = "".join(f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in facts)
    return f'<div class="card"><table class="facts"><tbody>{rows}</tbody></table></div>'
