"""The API's page in a real browser, and its commands in a real shell."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_support import CLASSES, KEY, Visit, Visiting, photo
from serving_client import Server, serving

from tenfold import load

expect: Any = pytest.importorskip("playwright.sync_api", reason="needs playwright (tenfold[dev])").expect


@pytest.fixture(scope="module")
def site(browser: Any, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(f"shapes={shapes}", "--workers", "1", folder=tmp_path_factory.mktemp("site")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def commands(visit: Visit) -> list[str]:
    page = visit.open("/docs")
    page.wait_for_selector(".operation")
    found: list[str] = page.evaluate("[...document.querySelectorAll('.sample pre')].map(pre => pre.textContent)")
    return found


def outcomes(shown: list[str], folder: Path, **env: str) -> dict[str, str]:
    """The status by the command, each run by a shell as it stands, in a folder with a photo.jpg."""
    (folder / "photo.jpg").write_bytes(photo("JPEG"))
    found = {}
    for command in shown:
        script = f"curl() {{ command curl -sS -w '\\n%{{http_code}}' \"$@\"; }}\n{command}\n"
        own = {"PATH": "/usr/bin:/bin", **env}
        done = subprocess.run(["bash", "-c", script], cwd=folder, env=own, capture_output=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, b""), (command, done.stderr)
        found[command] = done.stdout.rpartition(b"\n")[2].decode()
    return found


def test_every_command_of_the_docs_runs(visit: Visit, tmp_path: Path) -> None:
    shown = commands(visit)
    assert len(shown) > 25 and all(visit.address in command for command in shown)
    assert set(outcomes(shown, tmp_path).values()) == {"200"}


def test_every_command_of_the_docs_runs_with_a_key(visiting: Visiting, keyed: Server, tmp_path: Path) -> None:
    visit = visiting(keyed)
    shown = commands(visit)
    assert CLASSES[1] not in visit.page.content() and "shapes" not in visit.page.content()  # not told without the key
    visit.page.click("#give")
    visit.page.fill("#key", KEY)
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#operations :text('shapes-quick-1')")
    shown = commands(visit)
    assert set(outcomes(shown, tmp_path, TENFOLD_KEY=KEY).values()) == {"200"}
    assert KEY not in visit.page.content()


def test_the_docs_can_be_tried_and_copied(visit: Visit, shapes: Path, tmp_path: Path) -> None:
    visit.refused = {400}
    page = visit.open("/docs#model")
    page.wait_for_selector("#model[open]")
    page.click("#model .try button")
    page.wait_for_selector("#model .try pre:not([hidden])")
    assert page.text_content("#model .try p").startswith("200 OK") and '"shapes-quick-1"' in page.text_content(
        "#model .try pre"
    )
    (tmp_path / "a.png").write_bytes(photo("PNG"))
    page.set_input_files("#predict .try input[type=file]", tmp_path / "a.png")
    page.fill("#predict .try input[name=top]", "1")
    page.click("#predict .try button")
    page.wait_for_selector("#predict .try pre:not([hidden])")
    answer = json.loads(page.text_content("#predict .try pre"))["predictions"][0]
    best = load(shapes).predict(photo("PNG"))
    assert answer["top"] == [{"class": best.label, "probability": pytest.approx(best.probability)}]
    page.fill("#predict .try input[name=top]", "none")
    page.click("#predict .try button")
    expect(page.locator("#predict .try p")).to_contain_text("400 bad_request")
    assert "top must be a whole number" in page.text_content("#predict .try pre")
    page.click("#predict .sample button >> nth=0")
    expect(page.locator("#predict .sample button").first).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.text_content("#predict .sample pre >> nth=0")
