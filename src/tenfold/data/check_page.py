"""The findings of a check as one self-contained HTML page with the pictures in it. All text is escaped: names of
classes and files come from strangers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from tenfold.data.alike import Group, Pool
from tenfold.data.check import Checked, Finding, several
from tenfold.png import data_uri, thumbnail

GROUPS = 48  # shown of a finding; check.json has all
PICTURES = 96
OF_GROUP = 8
ROWS = 200
SIDE = 96  # pixels of a thumbnail at most
CLASSES = 200

_WORDS = {"error": "Error", "warning": "Warning", "note": "Note"}


def page(checked: Checked) -> str:
    dataset = checked.pool.dataset
    title = f"Check of {dataset.name}"
    style = (resources.files("tenfold.data") / "check.css").read_text(encoding="utf-8")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_subtitle(checked))}</p>',
        f'<p class="verdict">{escape(verdict(checked))}</p>',
        _contents(checked.findings),
        _notes(dataset.notes),
        *(_section(checked.pool, finding) for finding in checked.findings),
        _classes(checked),
        _footer(checked),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def verdict(checked: Checked) -> str:
    """The whole in a sentence."""
    counts = [(checked.count("error"), "error"), (checked.count("warning"), "warning"), (checked.count("note"), "note")]
    found = [several(number, word) for number, word in counts if number]
    if not found:
        return "Nothing to complain of."
    return (", ".join(found[:-1]) + " and " + found[-1] if len(found) > 1 else found[0]) + "."


def _subtitle(checked: Checked) -> str:
    dataset = checked.pool.dataset
    sizes = ", ".join(f"{len(dataset[name]):,} {name}" for name in checked.pool.names)
    geometry = dataset.geometry
    return (
        f"{several(len(checked.pool), 'picture')} ({sizes}) of {several(len(dataset.classes), 'class', 'classes')}, "
        f"{geometry.height}×{geometry.width} pixels." + (f" {dataset.source}" if dataset.source != dataset.name else "")
    )


def _contents(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = (
        f'<li><a href="#{f.name}"><span class="mark {f.severity}">{_WORDS[f.severity]}</span>'
        f"<span>{escape(f.title)}</span><b>{f.count:,}</b></a></li>"
        for f in findings
    )
    return f'<ul class="list">{"".join(rows)}</ul>'


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="small soft" style="margin-top:.75rem">{escape(note)}</p>' for note in notes)


def _section(pool: Pool, finding: Finding) -> str:
    body = [
        f'<h2 id="{finding.name}">{escape(finding.title)}</h2>',
        f'<p class="small soft"><span class="mark {finding.severity}">{_WORDS[finding.severity]}</span></p>',
        f"<p>{escape(finding.text)} {escape(finding.advice)}</p>",
    ]
    if finding.groups:
        first = finding.name.removesuffix("-leak")
        body.append(f'<div class="groups">{"".join(_group(pool, g, first) for g in finding.groups[:GROUPS])}</div>')
        body.append(_more(len(finding.groups) - GROUPS, "group"))
    if finding.pictures:
        shown = "".join(_figure(pool, i, _size(finding, at)) for at, i in enumerate(finding.pictures[:PICTURES]))
        body.append(f'<div class="groups"><div class="group"><div class="pictures">{shown}</div></div></div>')
        body.append(_more(len(finding.pictures) - PICTURES, "picture"))
    elif finding.rows:
        body.append(_table(finding.rows[:ROWS]))
        body.append(_more(len(finding.rows) - ROWS, "row"))
    return f"<section>{''.join(body)}</section>"


def _size(finding: Finding, at: int) -> str:
    return str(finding.rows[at].get("size", "")) if at < len(finding.rows) else ""


def _more(number: int, what: str) -> str:
    return f'<p class="more">And {several(number, what)} more, in check.json.</p>' if number > 0 else ""


def _group(pool: Pool, group: Group, first: str) -> str:
    """The pictures of the split that the finding is about come first, and one of each split is always shown."""
    ordered = sorted(group.pictures, key=lambda i: (pool.split(i) != first, i))
    shown = ordered[:OF_GROUP]
    if len(ordered) > OF_GROUP and len({pool.split(i) for i in shown}) < len(pool.splits(group)):
        shown[-1] = next(i for i in ordered if pool.split(i) not in {pool.split(j) for j in shown})
    how = "the same pixels" if group.exact else f"correlation {math.floor(group.score * 100) / 100:.2f}"
    if group.mirrored:
        how += ", mirrored"
    if len(ordered) > len(shown):
        how += f", {len(ordered) - len(shown):,} more not shown"
    figures = "".join(_figure(pool, i) for i in shown)
    return f'<div class="group"><div class="pictures">{figures}</div><div class="how">{how}</div></div>'


def _figure(pool: Pool, index: int, more: str = "") -> str:
    image = pool.image(index)
    small = thumbnail(np.asarray(image), SIDE)
    split, label, origin = pool.split(index), escape(pool.label(index)), escape(pool.origin(index))
    kind = ' class="pixels"' if max(small.shape[:2]) < SIDE else ""
    extra = f'<span class="soft">{escape(more)}</span>' if more else ""
    return (
        f'<figure><img{kind} src="{data_uri(small)}" alt="{label}" loading="lazy"><figcaption>'
        f'<span class="name" title="{label}">{label}</span><span class="{split}">{split}</span>'
        f'<span class="soft" title="{origin}">{_ending(pool.origin(index))}</span>{extra}</figcaption></figure>'
    )


def _ending(origin: str) -> str:
    """The end of a path, which is what tells pictures apart."""
    name = origin.rsplit("/", 1)[-1]
    return escape(name if len(name) <= 14 else "…" + name[-13:])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = "".join(f"<th>{escape(str(key))}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f'<div class="card tall scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _classes(checked: Checked) -> str:
    dataset, names = checked.pool.dataset, [n for n in checked.pool.names if len(checked.pool.dataset[n])]
    counts = np.array([dataset.counts(name) for name in names]).reshape(len(names), len(dataset.classes))
    if not counts.size:
        return ""
    most = max(1, int(counts.sum(0).max()))
    head = "".join(f'<th class="n {name}">{name}</th>' for name in names)
    rows = []
    for index, name in enumerate(dataset.classes[:CLASSES]):
        bars = "".join(
            f'<i class="{split}" style="width:{100 * counts[row, index] / most:.2f}%"></i>'
            for row, split in enumerate(names)
            if counts[row, index]
        )
        cells = "".join(f'<td class="n">{counts[row, index]:,}</td>' for row in range(len(names)))
        rows.append(f'<tr><td>{escape(name)}</td>{cells}<td class="bar">{bars}</td></tr>')
    return (
        f'<section><h2 id="classes">Classes</h2><div class="card tall scroll"><table><thead><tr><th>class</th>{head}'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        + _more(len(dataset.classes) - CLASSES, "class")
        + "</section>"
    )


def _footer(checked: Checked) -> str:
    from tenfold import __version__

    sizes = [h.size for h in checked.headers]
    common = max(set(sizes), key=sizes.count) if sizes else ""
    files = f" The files are of {several(len(set(sizes)), 'size')}, most often {common}." if sizes else ""
    return (
        '<footer class="small soft"><p>Near duplicates were taken from a correlation of fine detail of '
        f"{checked.least:.2f} on (random pictures of this dataset stay well below); docs/check.md says how they are "
        f"found and what is missed.{files}</p><p>tenfold {escape(__version__)}</p></footer>"
    )
