"""The report of a run: one HTML file that needs nothing else, and the same plots as PNG beside it.

The page has no script and no outside address, and says so to the browser (Content-Security-Policy). Class names,
paths and recipes come from strangers: everything that is not a literal here passes ``escape``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tenfold.evaluation import frame, svg
from tenfold.evaluation.content import Mistake, ReportContent, epochs, moments, samples, worst_mistakes
from tenfold.evaluation.frame import tile
from tenfold.evaluation.metrics import ClassFigures, Evaluation
from tenfold.paths import folder_whole, write_whole
from tenfold.png import data_uri
from tenfold.words import percent, rate, seconds, size

__all__ = ["ReportContent", "html", "write"]

REPORT = "report.html"
PLOTS = "plots"
IN_ORDER = 24  # with more classes, tables begin with the weakest
NO_PLOTS = "The plots were not written as PNG: matplotlib is not installed (pip install matplotlib)."


def write(folder: Path, content: ReportContent) -> Path:
    """Write ``report.html`` and ``plots/*.png`` into ``folder``, each whole or not at all. Returns the page's path.

    Without matplotlib the page is complete and says that the PNG files are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes: tuple[str, ...] = ()
    if importlib.util.find_spec("matplotlib") is None:
        notes = (NO_PLOTS,)
    else:
        from tenfold.evaluation.plots import draw

        with folder_whole(folder / PLOTS) as plots:
            for name, picture in draw(content).items():
                (plots / f"{name}.png").write_bytes(picture)
    page = folder / REPORT
    write_whole(page, html(content, notes))
    return page


def html(content: ReportContent, notes: Sequence[str] = ()) -> str:
    """The page. ``notes`` are shown with the content's own."""
    times = content.seconds() if callable(content.seconds) else content.seconds
    sections = [
        ("training", "Training", _training(content)),
        ("confusion", "Which classes are confused", _confusion(content)),
        ("classes", "Each class", _classes(content.evaluation)),
        ("mistakes", "Worst mistakes", _mistakes(content)),
        ("calibration", "Calibration", _calibration(content.evaluation)),
        ("data", "Data", _data(content)),
        ("time", "Time and hardware", _time(content, times)),
        ("recipe", "Recipe", _recipe(content)),
    ]
    geometry = content.dataset.geometry
    told = [*content.notes, *_evaluation_notes(content), *notes]
    return frame.page(
        content.title,
        _subtitle(content),
        sections,
        head=_tiles(content, times) + frame.notes(told),
        version=content.versions.get("tenfold", ""),
        body_style=f"--aspect: {geometry.width} / {geometry.height}",
        images=True,
    )


# ---- head ----------------------------------------------------------------------------------------------------


def _subtitle(content: ReportContent) -> list[str]:
    d = content.dataset
    parts = [d.name, f"{len(d.classes):,} classes", f"{d.geometry.width} × {d.geometry.height} pixels"]
    return parts + [p for p in (content.engine, content.device, frame.when(content.created)) if p]


def _tiles(content: ReportContent, times: Mapping[str, float]) -> str:
    tiles = []
    if e := content.evaluation:
        digits = 2 if e.n >= 1000 else 1  # more would be noise
        low, high = (percent(x, digits) for x in e.interval)
        name = escape(_split_name(content, e))
        tiles.append(
            f'<div class="tile first"><span>{name} accuracy</span><b>{percent(e.accuracy, digits)}</b>'
            f"<span>{low} to {high} (95 % interval), {e.n:,} images</span></div>"
        )
        tiles.append(tile("loss", f"{e.loss:.3f}", "−log probability of the true class"))
        if e.top3 is not None:
            tiles.append(tile("top-3 accuracy", percent(e.top3, digits), "true class among the first three"))
        tiles.append(
            tile("calibration error", percent(e.ece, digits), f"ECE; by chance {percent(e.ece_by_chance, digits)}")
        )
        tiles.append(tile("macro F1", percent(e.macro_f1, digits), "every class counts alike"))
    if (v := content.val) and v is not content.evaluation:
        tiles.append(tile("validation accuracy", percent(v.accuracy, 2 if v.n >= 1000 else 1), f"{v.n:,} images"))
    if "total" in times:
        train = times.get("train")
        under = f"training: {seconds(train)}" if train is not None else "the whole command"
        tiles.append(tile("time", seconds(times["total"]), under))
    if content.parameters is not None:
        tiles.append(tile("parameters", f"{content.parameters:,}", "in the network"))
    if content.images_per_second:
        tiles.append(tile("training speed", f"{content.images_per_second:,.0f}", "images a second"))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _evaluation_notes(content: ReportContent) -> list[str]:
    return [*content.dataset.notes, *(content.evaluation.notes if content.evaluation else ())]


def _split_name(content: ReportContent, evaluation: Evaluation) -> str:
    split = evaluation.split or ("val" if evaluation is content.val else "test")
    name = {"val": "validation", "train": "training", "all": "overall"}.get(split, split)
    return name + (f" ({evaluation.tta})" if evaluation.tta not in ("", "none") else "")


# ---- sections ------------------------------------------------------------------------------------------------


def _training(content: ReportContent) -> str:
    rows = epochs(content)
    if not rows:
        return ""
    between = moments(content)
    x = [r["at"] for r in between]

    def column(key: str) -> list[float | None]:
        return [r.get(key) for r in between]

    def pair(key: str) -> list[svg.Series]:
        found = [svg.Series("train", "s0", column(key))]
        val = svg.Series("validation", "s1", [r.get(f"val_{key}") for r in rows], [r["at"] for r in rows])
        return [*found, val] if any(v is not None for v in val.values) else found

    charts = [
        svg.lines("accuracy", x, pair("accuracy"), show=lambda v: f"{100 * v:.4g} %", highest=1.0),
        svg.lines("loss", x, pair("loss"), show=lambda v: f"{v:.3g}"),
        svg.lines("learning rate", x, [svg.Series("", "s2", column("lr"))], show=lambda v: f"{v:.3g}", zero=True),
    ]
    cards = "".join(f'<figure class="card">{c}</figure>' for c in charts)
    return (
        '<p class="soft small">Training figures are means over augmented images while the weights moved; validation '
        "figures are taken at an epoch’s end on plain images, so they may lie above.</p>"
        f'<div class="row">{cards}</div>'
    )


def _confusion(content: ReportContent) -> str:
    e = content.evaluation
    if e is None:
        return ""
    wide = len(e.classes) > 12
    rows = "".join(
        f'<tr><td class="wrap">{escape(c.true)}</td><td class="wrap l">{escape(c.predicted)}</td>'
        f"<td>{c.count:,}</td><td>{percent(c.share, 1)}</td></tr>"
        for c in e.most_confused(12 if wide else 10)
    )
    table = (
        f'<div class="card scroll"><h3>Most confused</h3><table><thead><tr><th>true</th><th class="l">taken for</th>'
        f"<th>images</th><th>of class</th></tr></thead><tbody>{rows}</tbody></table></div>"
        if rows
        else '<div class="card">No mistakes.</div>'
    )
    matrix = f'<div class="card scroll">{svg.matrix(e)}</div>'
    return (
        '<p class="soft small">A row for each true class; color is the share of the row: blue on the diagonal is '
        "right, orange is wrong, raised so that rare mistakes show.</p>"
        f'<div class="beside{" wide" if wide else ""}">{matrix}{table}</div>'
    )


def _classes(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    figures = list(evaluation.per_class)
    order = ""
    if len(figures) > IN_ORDER:
        figures.sort(key=lambda c: (c.recall is None, c.recall))
        order = " The weakest come first."
    rows = "".join(_class_row(c) for c in figures)
    return (
        '<p class="soft small">Recall: of this class’s images, the share that was found; the whisker is its 95 % '
        "Wilson interval. Precision: of the images given this class, the share that is of it. "
        f"A dash: there is nothing to divide by.{order}</p>"
        '<div class="card scroll tall"><table><thead><tr><th>class</th><th>images</th><th>recall</th>'
        '<th>95 % interval</th><th class="bars"></th><th>precision</th><th>F1</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _class_row(c: ClassFigures) -> str:
    interval = f"{100 * c.recall_interval[0]:.1f} – {100 * c.recall_interval[1]:.1f} %" if c.recall_interval else "–"
    return (
        f"<tr><td>{escape(c.name)}</td><td>{c.support:,}</td><td>{percent(c.recall, 1)}</td><td>{interval}</td>"
        f'<td class="bars">{svg.bar(c.recall, c.recall_interval)}</td><td>{percent(c.precision, 1)}</td>'
        f"<td>{percent(c.f1, 1)}</td></tr>"
    )


def _mistakes(content: ReportContent) -> str:
    if content.probabilities is None or content.evaluation is None:
        return ""
    found = worst_mistakes(content)
    if not found:
        return "<p>There are none: every image was classified correctly.</p>"
    figures = "".join(_mistake(m) for m in found)
    wrong = content.evaluation.n - round(content.evaluation.accuracy * content.evaluation.n)
    return (
        f'<p class="soft small">The {len(found)} of {wrong:,} mistakes that the model was most sure of. '
        "In bold what it said, below it what the picture is by its label, each with the "
        "model’s probability. Wrong labels in the data show up here too.</p>"
        f'<div class="card"><div class="pics">{figures}</div></div>'
    )


def _mistake(m: Mistake) -> str:
    return (
        f'<figure title="{escape(m.origin)}"><img src="{data_uri(m.image)}" alt="{escape(m.true)}">'
        f"<figcaption><b>{escape(svg.shorten(m.predicted, 60))}</b> <span>{percent(m.sure, 1)}</span><br>"
        f"is {escape(svg.shorten(m.true, 60))} <span>{percent(m.true_probability, 1)}</span></figcaption></figure>"
    )


def _threshold(evaluation: Evaluation) -> str:
    """What the model's threshold makes of these images."""
    if evaluation.threshold is None or evaluation.known is None:
        return ""
    right = f", and of the others {percent(evaluation.known_accuracy, 1)} are right" if evaluation.known else ""
    return (
        f"<p>Where the highest probability is below {evaluation.threshold:.3f}, the answer counts as unknown: that is "
        f"so for {percent(1 - evaluation.known, 1)} of these images{right}. The threshold is what 95 % of the "
        "validation images reach.</p>"
    )


def _calibration(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    over = sum(b.count * (b.confidence - b.accuracy) for b in evaluation.reliability) / evaluation.n
    lean = "about as sure as it should be"
    if abs(over) > max(0.005, evaluation.ece_by_chance):
        lean = f"on the whole too {'sure' if over > 0 else 'modest'}, by {percent(abs(over), 1)}"
    return (
        f'<div class="card half"><div>{svg.reliability(evaluation.reliability)}</div><div><p>When the model says '
        "80 %, is it right in 80 of 100 cases? Images are put in 15 bins by the probability of the class chosen. A "
        "blue column is how often that was right, the orange mark what the model said on average.</p>"
        f"<p>The mean distance between the two over all images is the expected calibration error: "
        f"{percent(evaluation.ece)}. By chance alone, a perfectly calibrated model would show about "
        f"{percent(evaluation.ece_by_chance)} on so many images. The model is {lean}.</p>"
        f"{_threshold(evaluation)}"
        '<p class="soft small">Columns of few images (the grey ones below show how many) jump about by chance.</p>'
        "</div></div>"
    )


def _data(content: ReportContent) -> str:
    d = content.dataset
    counts = {name: d.counts(name) for name in ("train", "val", "test") if name in d.splits}
    facts = {
        "source": d.source,
        "images": ", ".join(f"{int(c.sum()):,} {name}" for name, c in counts.items()),
        "classes": f"{len(d.classes):,}",
        "pixels": f"{d.geometry.width} × {d.geometry.height}, resize: {d.geometry.resize}, {d.geometry.interpolation}",
        "splits": _rule(d.split_rule),
        "left out": f"{len(d.skipped):,} pictures" if d.skipped else "none",
        "fingerprint": d.fingerprint[:16],
    }
    skipped = ""
    if d.skipped:
        shown = "".join(f"<li>{escape(s.path)}: {escape(s.reason)}</li>" for s in d.skipped[:50])
        more = f"<li>and {len(d.skipped) - 50:,} more</li>" if len(d.skipped) > 50 else ""
        skipped = f'<div class="card small scroll"><h3>Pictures left out</h3><ul>{shown}{more}</ul></div>'
    return f'<div class="card">{_table(facts)}</div><br>{_samples(content, counts)}{skipped}'


def _samples(content: ReportContent, counts: Mapping[str, Any]) -> str:
    groups = samples(content.dataset)
    if not groups:
        return ""
    if len(groups) > 20:
        figures = "".join(
            f'<figure title="{escape(s.origin)}"><img src="{data_uri(s.image)}" alt="">'
            f"<figcaption>{escape(svg.shorten(name, 40))}</figcaption></figure>"
            for name, group in groups
            for s in group[:1]
        )
        total = len(content.dataset.classes)
        some = f" Shown are {len(groups)} of {total:,} classes." if total > len(groups) else ""
        return (
            f'<p class="soft small">One training image of each class.{some}</p>'
            f'<div class="card"><div class="pics many">{figures}</div></div>'
        )
    rows = ""
    for i, (name, group) in enumerate(groups):
        numbers = ", ".join(f"{int(c[i]):,} {split}" for split, c in counts.items() if c.sum())
        pictures = "".join(
            f'<img src="{data_uri(s.image)}" alt="{escape(name)}" title="{escape(s.origin)}">' for s in group
        )
        label = escape(svg.shorten(name, 60))
        rows += f'<div class="strip"><div>{label}<span>{numbers}</span></div><div>{pictures}</div></div>'
    words = "Training images of each class, as the network sees them."
    return f'<p class="soft small">{words}</p><div class="card">{rows}</div>'


def _rule(rule: Mapping[str, Any] | None) -> str:
    return ", ".join(str(v) if k == "rule" else f"{k} {v}" for k, v in rule.items()) if rule else "the source’s own"


def _time(content: ReportContent, times: Mapping[str, float]) -> str:
    phases = [(k, v) for k, v in times.items() if k != "total"]
    facts: dict[str, str] = {}
    if "total" in times:
        facts["total"] = seconds(times["total"])
    if content.images_per_second:
        facts["throughput"] = f"{rate(content.images_per_second)} in training"
    if content.peak_memory_bytes:
        facts["peak memory"] = size(content.peak_memory_bytes)
    h = content.hardware
    label = f"{content.device} ({h['device']})" if h.get("device") else content.device
    facts |= {"engine": content.engine, "device": label, "precision": content.precision}
    facts["processor"] = " · ".join(
        str(x) for x in (h.get("cpu"), f"{h['cores']} cores" if h.get("cores") else None) if x
    )
    facts["memory"] = size(h["memory_bytes"]) if h.get("memory_bytes") else ""
    facts["system"] = str(h.get("system", ""))
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in content.versions.items())
    facts |= content.facts
    if not any(facts.values()) and not phases:
        return ""
    return f'<div class="card">{_phases(phases)}{_table(facts)}</div>'


def _phases(phases: Sequence[tuple[str, float]]) -> str:
    if not phases:
        return ""
    bars = "".join(f'<i class="p{i % 7}" style="flex: {max(v, 0):.4f}"></i>' for i, (_, v) in enumerate(phases))
    keys = "".join(
        f'<span><i class="p{i % 7}"></i>{escape(k)} {seconds(max(v, 0))}</span>' for i, (k, v) in enumerate(phases)
    )
    return f'<div class="phases">{bars}</div><div class="key">{keys}</div>'


def _recipe(content: ReportContent) -> str:
    parts = ""
    if content.command:
        parts += f'<p class="soft small">To do it again:</p><pre>{escape(content.command)}</pre><br>'
    if content.recipe:
        parts += (
            '<p class="soft small">Every decision of the run, as it was resolved; saved as recipe.yaml in the run’s '
            "folder, and given to <code>--recipe</code> it gives the run again.</p>"
            f'<pre class="tall">{escape(content.recipe)}</pre>'
        )
    return parts


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(f'<tr><th class="l">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in facts.items() if v)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'
