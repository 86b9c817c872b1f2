from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenfold.bundle import store

# Tests here share a client and a browser, which are no tests.
sys.path.insert(0, str(Path(__file__).parent))
from page_support import Visit, Visiting, asking_a_key, chromium, model, visits
from serving_client import Server, serving


@pytest.fixture(scope="session")
def tiny_bundle(bundle_content: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three classes at 8×8, in a run's folder with a report."""
    run = tmp_path_factory.mktemp("served") / "tiny-run"
    bundle = store.write(run / "model", bundle_content(threshold=0.56))
    (run / "report.html").write_text("<!doctype html><title>report</title>")
    return bundle.path.parent


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the tiny bundle with two workers, for all tests of a file."""
    folder = tmp_path_factory.mktemp("server")
    with serving(tiny_bundle, "--workers", "2", folder=folder) as running:
        yield running
        assert running.process.poll() is None, running.log.read_text()
        assert "Traceback" not in running.log.read_text(), running.log.read_text()


# ---- the pages in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shapes(bundle_content: Any, reference_logits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("page") / "shapes-quick-1", bundle_content, reference_logits)


@pytest.fixture(scope="module")
def keyed(browser: Any, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(*asking_a_key(shapes, folder := tmp_path_factory.mktemp("keyed")), folder=folder) as running:
        yield running


@pytest.fixture
def visiting(browser: Any) -> Iterator[Visiting]:
    with visits(browser) as visiting:
        yield visiting


@pytest.fixture
def visit(visiting: Visiting, site: Server) -> Visit:
    """A visit of the file's own ``site``."""
    return visiting(site)
