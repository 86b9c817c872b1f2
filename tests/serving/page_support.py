"""A browser for tests of the pages: Chromium as it is installed, driven by Playwright, and what it complains of."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_client import Server

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.bundle import store
from tenfold.data.dataset import Geometry

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]

KEY = "a-key-of-this-server-0123456789"

# Names of classes come from whoever made a model: HTML, a formula, quotes and a shell's signs among them.
CLASSES = ("<img src=x onerror=alert(1)>", "=1+1", 'it\'s "ü", $(id) & `id`')


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (tenfold[dev])")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def asking_a_key(run: Path, folder: Path) -> list[str]:
    """Arguments of a server of ``run`` that knows KEY."""
    (folder / "keys").write_text(f"{KEY}\n")
    return [str(run), "--workers", "1", "--api-key-file", str(folder / "keys")]


def model(folder: Path, bundle_content: Callable[..., Any], reference_logits: Any) -> Path:
    """A run with a model that has heat maps, an answer that depends on the picture, and a report. Takes wide pictures'
    middle."""
    rng = np.random.default_rng(1)
    layers = (
        l.Normalize(),
        l.Conv(6, 3, padding=1),
        l.Activation("relu"),
        l.Pool("max", 2, 2),
        l.GlobalPool("average"),
        l.Dense(3),
    )
    architecture = l.Architecture("plain", 16, 16, 3, layers)
    images = rng.integers(0, 256, (5, 16, 16, 3), np.uint8)
    weights = canonical.initial(architecture, 0, images)
    [kernel] = [name for name in weights if name.endswith("_dense.kernel")]
    weights[kernel] = 20 * weights[kernel]
    [bias] = [name for name in weights if name.endswith("_dense.bias")]
    weights[bias] = -reference_logits(architecture, weights, images).mean(0)
    metrics = {"accuracy": 0.875, "n": 1200, "loss": 0.4, "ece": 0.0123, "tta": "none"}
    dataset = {"name": "shapes", "counts": {"train": 900, "val": 100, "test": 1200}}
    content = bundle_content(
        size=16,
        name="shapes-quick-1",
        geometry=Geometry(16, 16, "crop"),
        architecture=architecture,
        weights=weights,
        metrics={"test": metrics},
        provenance={"dataset": dataset, "engine": "torch", "recipe": {"name": "quick", "epochs": 2.5}},
        golden_images=images,
        golden_logits=reference_logits(architecture, weights, images),
    )
    content = dataclasses.replace(content, classes=CLASSES)
    store.write(folder / "model", content)
    (folder / "report.html").write_text("<!doctype html><title>report</title><p>The report.")
    return folder


def photo(kind: str, seed: int = 0, size: tuple[int, int] = (40, 30), orientation: int = 1) -> bytes:
    """A picture of three colours in blocks, turned as EXIF's ``orientation`` says."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize(size, Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    return file.getvalue()


class Visit:
    """A page under test. ``problems`` is what the browser complained of, but refusals that the test expects."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.problems: list[str] = []
        self.refused: set[int] = set()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _said(self, message: Any) -> None:
        refused = re.search(r"server responded with a status of (\d+)", message.text)
        if message.type not in ("error", "warning") or (refused and int(refused[1]) in self.refused):
            return
        self.problems.append(message.text)

    def open(self, path: str = "/") -> Any:
        self.page.goto(self.address + path)
        return self.page

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Files dropped on the page, in a transfer of the browser's own."""
        self.page.evaluate(
            """files => {
                 const transfer = new DataTransfer();
                 for (const [name, text] of files) {
                   const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
                   transfer.items.add(new File([bytes], name));
                 }
                 const how = { dataTransfer: transfer, bubbles: true, cancelable: true };
                 for (const type of ["dragenter", "dragover", "drop"])
                   document.querySelector("#stage").dispatchEvent(new DragEvent(type, how));
               }""",
            [[name, base64.b64encode(data).decode()] for name, data in files],
        )

    def drag_in(self, *paths: Path) -> None:
        """Files and folders dragged in from the system, as a person does it."""
        session = self.page.context.new_cdp_session(self.page)
        box = self.page.locator("#stage").bounding_box()
        at = {"x": box["x"] + 50, "y": box["y"] + 50}
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})

    def answer(self) -> tuple[str, str]:
        """(class, probability as it is shown) of the picture that is looked at, when it is there."""
        self.page.wait_for_selector("#answer[aria-busy=false] #result:not([hidden])")
        number = self.page.text_content("#bars .most .number")
        return self.page.text_content("#class"), number.replace("\u00a0", " ")

    def sentence(self) -> str:
        """Why there is no answer, when there is none."""
        self.page.wait_for_selector("#refused:not([hidden])")
        text: str = self.page.text_content("#refused > div:first-child")
        return text


Visiting = Callable[..., Visit]


@contextlib.contextmanager
def visits(browser: Any) -> Iterator[Visiting]:
    """(server, **what the browser is) → a visit in a window of its own, which must end without a complaint."""
    contexts, made = [], []

    def visit(server: Server, **how: Any) -> Visit:
        context = browser.new_context(permissions=["camera", "clipboard-read", "clipboard-write"], **how)
        context.set_default_timeout(10_000)
        contexts.append(context)
        made.append(Visit(context.new_page(), f"http://127.0.0.1:{server.port}"))
        return made[-1]

    try:
        yield visit
    finally:
        for context in contexts:
            context.close()
    assert [visit.problems for visit in made] == [[] for _ in made]
