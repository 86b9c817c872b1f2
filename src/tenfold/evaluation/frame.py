"""The frame of every page that tenfold writes, and the pieces they share: one file that needs no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources


def page(
    title: str,
    lead: Sequence[str],
    sections: Sequence[tuple[str, str, str]],
    *,
    head: str,
    version: str,
    style: str = "",
    body_style: str = "",
    images: bool = False,
) -> str:
    """A whole page. ``lead`` stands under the title; ``sections`` are (anchor, title, HTML), those without content left
    out; ``head`` is the HTML above them. ``style`` is CSS beside the common one, ``images`` lets data URIs be shown."""
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{escape(name)}</h2>{text}</section>' for key, name, text in sections)
    common = (resources.files("tenfold.evaluation") / "style.css").read_text(encoding="utf-8")
    allowed = f"default-src 'none'; {'img-src data:; ' if images else ''}style-src 'unsafe-inline'"
    attribute = f' style="{body_style}"' if body_style else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · tenfold</title><style>{common}{style}</style></head>"
        f"<body{attribute}><header><h1>{escape(title)}</h1>"
        f'<p class="lead">{" · ".join(map(escape, lead))}</p><nav>{links}</nav></header>'
        f"{head}{body}<footer>Written by tenfold{f' {escape(version)}' if version else ''}. This page needs no network "
        "and no other file.</footer></body></html>\n"
    )


def tile(label: str, value: str, under: str, style: str = "") -> str:
    """A figure with its name above and a line below; ``style`` is a CSS class, such as ``first``."""
    under = under.replace(" %", "\u00a0%")
    return (
        f'<div class="{f"tile {style}".strip()}"><span>{escape(label)}</span><b>{escape(value)}</b>'
        f"<span>{escape(under)}</span></div>"
    )


def notes(told: Sequence[str]) -> str:
    """What must be said, each once; nothing where nothing must."""
    items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(told))
    return f'<div class="notes small"><ul>{items}</ul></div>' if items else ""


def when(created: str) -> str:
    """``2026-11-28 09:34 UTC`` of an ISO time in UTC."""
    return re.sub(r"(\d)T(\d\d:\d\d):\d\d\+00:00$", r"\1 \2 UTC", created)
