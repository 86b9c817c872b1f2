"""Figures in the project's pages: what stands between two markers is written by a script."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def between(page: str, name: str, text: str) -> str:
    """``page`` with ``text`` between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->``; ValueError without them."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise ValueError(f"the page needs {start} and {end}, once each and in this order")
    before, rest = page.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{text}\n{end}{after}"


def put(page: Path, name: str, text: str) -> None:
    """Writes ``text`` between the markers of a page. Raises ValueError, naming the page, where they are not there."""
    try:
        new = between(page.read_text(encoding="utf-8"), name, text)
    except ValueError as error:
        raise ValueError(f"{page.name}: {error}") from None
    page.write_text(new, encoding="utf-8")
