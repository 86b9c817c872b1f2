"""The pages in a real browser, asking a real server."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_support import CLASSES, KEY, Visit, Visiting, photo
from PIL import Image
from serving_client import Server, png, serving, until

from tenfold import load
from tenfold.cli.app import run
from tenfold.errors import ImageError

expect: Any = pytest.importorskip("playwright.sync_api", reason="needs playwright (tenfold[dev])").expect

BROKEN = photo("PNG")[:100]


@pytest.fixture(scope="module")
def site(browser: Any, shapes: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two models; the second has a threshold."""
    arguments = [f"shapes={shapes}", f"tiny={tiny_bundle}", "--workers", "2", "--max-body", "1MiB"]
    with serving(*arguments, folder=tmp_path_factory.mktemp("site")) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def expected(run_folder: Path, picture: bytes) -> tuple[str, str]:
    """What ``tenfold predict`` says, as the page shows it."""
    answer = load(run_folder, quick=True).predict(picture)
    return "unknown" if answer.unknown else answer.label, f"{100 * answer.probability:.1f} %"


# ---- one picture -----------------------------------------------------------------------------------------------------


def test_a_dropped_picture_gets_what_predict_says(visit: Visit, shapes: Path) -> None:
    page = visit.open()
    page.wait_for_selector(".chips")
    assert page.locator("#knows li").all_text_contents() == list(CLASSES)
    answers = set()
    for seed, kind in enumerate(["PNG", "JPEG", "WEBP", "PNG", "PNG", "PNG"]):
        data = photo(kind, seed)
        visit.drop((f"{seed}.{kind.lower()}", data))
        expect(page.locator("#caption")).to_contain_text(f"{seed}.{kind.lower()} · ")
        assert visit.answer() == expected(shapes, data)
        answers.add(visit.answer()[0])
    assert len(answers) > 1
    assert "40 × 30 pixels" in page.text_content("#caption")
    assert re.fullmatch(r"[\d.]+\sms, of it [\d.]+\sms in the server", page.text_content("#time"))
    bars = page.evaluate(
        "[...document.querySelectorAll('#bars li')].map(row => row.querySelector('i').style.transform)"
    )
    names = page.locator("#bars .name").all_text_contents()
    shares = [float(bar[len("scaleX(") : -1]) for bar in bars]
    told = dict(load(shapes).predict(photo("PNG", 5)).top)
    assert dict(zip(names, shares, strict=True)) == pytest.approx(told, abs=1e-4)


def test_an_unknown_picture_is_said_to_be_one_and_why(visit: Visit, tiny_bundle: Path) -> None:
    data = next(d for d in map(png, range(200)) if load(tiny_bundle).predict(d).unknown)
    page = visit.open("/?model=tiny")
    page.wait_for_selector(".chips")
    visit.drop(("x.png", data))
    assert visit.answer() == expected(tiny_bundle, data)
    best = load(tiny_bundle).predict(data)
    said = page.text_content("#why").replace("\u00a0", " ")
    assert f"{best.label} with {100 * best.probability:.1f} %, below the model’s threshold of 56.0 %" in said
    assert page.locator("#heat-on").is_visible() == load(tiny_bundle).explains


def test_refusals_are_the_servers_own_sentences(visit: Visit, shapes: Path) -> None:
    visit.refused = {422, 413}
    page = visit.open()
    page.wait_for_selector(".chips")
    visit.drop(("broken.png", BROKEN))
    with pytest.raises(ImageError) as caught:
        load(shapes).predict(BROKEN)
    assert visit.sentence().lower() == caught.value.reason.lower()
    assert "bad_picture" in page.text_content("#refused")
    assert page.locator("#result").is_hidden()
    visit.drop(("large.png", bytes(3 * 2**20)))
    expect(page.locator("#refused")).to_contain_text("too_large")
    assert visit.sentence() == "The body is larger than 1,048,576 bytes."
    visit.drop(("good.png", photo("PNG")))
    assert visit.answer() == expected(shapes, photo("PNG"))
    assert page.locator("#refused").is_hidden()


def test_paste(visit: Visit, shapes: Path) -> None:
    page = visit.open()
    page.wait_for_selector(".chips")
    page.evaluate(
        """async () => {
             const canvas = new OffscreenCanvas(20, 20);
             const context = canvas.getContext("2d");
             context.fillStyle = "#3388cc";
             context.fillRect(0, 0, 20, 12);
             const picture = await canvas.convertToBlob({ type: "image/png" });
             await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
           }"""
    )
    page.keyboard.press("Control+V")
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:12] = (0x33, 0x88, 0xCC, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert visit.answer() == expected(shapes, file.getvalue())


def test_by_the_keyboard_alone(visit: Visit, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo("PNG", 3))
    page = visit.open()
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.wait_for_selector(".chips")

    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        raise AssertionError(f"the Tab key does not come to {selector}")

    tab_to("#about")
    page.keyboard.press("Enter")
    assert page.locator("#card").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#card").is_hidden()
    tab_to("#choose")
    page.keyboard.press("Enter")
    until(lambda: page.wait_for_timeout(20) or bool(choosers))
    choosers[0].set_files(tmp_path / "a.png")
    assert visit.answer() == expected(shapes, photo("PNG", 3))
    page.wait_for_timeout(500)  # the bars are in their order
    tab_to("#bars li:nth-child(2) button")
    page.keyboard.press("Space")
    page.wait_for_selector("#heat:not([hidden])")
    second = load(shapes).predict(photo("PNG", 3)).top[1][0]
    assert second in page.text_content("#looked")
    assert page.get_attribute("#bars li:nth-child(2) button", "aria-pressed") == "true"


# ---- what it looked at -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_heat_map_lies_where_the_server_says(visit: Visit, site: Server, orientation: int) -> None:
    """Over the middle of a wide picture, which is what the model sees; upright where EXIF data turn the picture."""
    data = photo("JPEG", 1, (64, 32), orientation)
    found = site.post("/explain?model=shapes", data).json["explanation"]
    box, values = found["box"], np.array(found["map"]["values"])
    assert box["width" if orientation == 1 else "height"] == pytest.approx(0.5)
    page = visit.open()
    page.wait_for_selector(".chips")
    visit.drop(("wide.jpg", data))
    visit.answer()
    page.check("#heat-on")
    page.wait_for_selector("#heat:not([hidden])")
    assert page.evaluate("document.querySelector('#image').naturalWidth") == (64 if orientation == 1 else 32)
    figure, canvas = page.locator("#figure").bounding_box(), page.locator("#heat").bounding_box()
    image = page.locator("#image").bounding_box()
    assert [image[side] for side in ("x", "y", "width", "height")] == pytest.approx(list(figure.values()), abs=1)
    assert canvas["x"] == pytest.approx(figure["x"] + box["left"] * figure["width"], abs=1)
    assert canvas["y"] == pytest.approx(figure["y"] + box["top"] * figure["height"], abs=1)
    assert canvas["width"] == pytest.approx(box["width"] * figure["width"], abs=1)
    assert canvas["height"] == pytest.approx(box["height"] * figure["height"], abs=1)
    colours = page.evaluate(
        """() => {
             const canvas = document.querySelector("#heat");
             return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
           }"""
    )
    side = round((len(colours) / 4) ** 0.5)
    green = np.array(colours).reshape(side, side, 4)[:, :, 1]  # grows with the value all the way
    cells = green[side // 16 :: side // 8, side // 16 :: side // 8]
    assert values.shape == cells.shape == (8, 8)
    order = np.argsort(values.ravel())
    assert (np.diff(cells.ravel()[order].astype(int)) > -16).all()  # a pixel lies beside a cell's centre
    assert np.ptp(cells) > 200
    page.locator("#strength").fill("0.3")
    assert page.evaluate("getComputedStyle(document.querySelector('#heat')).opacity") == "0.3"
    page.uncheck("#heat-on")
    assert page.locator("#heat").is_hidden()


# ---- several ---------------------------------------------------------------------------------------------------------


def test_a_folder_and_its_table(
    visit: Visit, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    visit.refused = {422}
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(photo("PNG", seed))
    (folder / "deep" / 'of "me", and you.png').write_bytes(photo("JPEG", 9))
    (folder / "broken.png").write_bytes(BROKEN)
    (folder / "notes.txt").write_text("no picture")
    page = visit.open()
    page.wait_for_selector(".chips")
    visit.drag_in(folder, folder / "5.png")
    page.wait_for_selector("#csv:enabled")
    assert page.locator("#rows tr").count() == 9
    assert page.text_content("#summary").startswith("9 pictures") and "1 not read" in page.text_content("#summary")
    assert "cut short" in page.locator("#rows tr", has_text="broken.png").text_content()
    with page.expect_download() as download:
        page.click("#csv")
    assert download.value.suggested_filename == "tenfold-shapes.csv"
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"), newline="")))
    monkeypatch.chdir(tmp_path)
    assert run(["predict", str(shapes), "photos", "photos/5.png", "--csv", "theirs.csv"]) == 1
    capsys.readouterr()
    theirs = list(csv.reader(io.StringIO((tmp_path / "theirs.csv").read_text(encoding="utf-8"), newline="")))
    rows[-1][0] = "photos/5.png"  # a file that was dropped by itself has no folder
    assert rows[0] == theirs[0]

    def plain(row: list[str]) -> list[object]:
        return [f"{float(cell):.5g}" if re.fullmatch(r"[\d.e-]+", cell) else cell.lower() for cell in row]

    assert sorted(map(plain, rows[1:])) == sorted(map(plain, theirs[1:]))
    assert any("'=1+1" in row for row in rows)  # no formula for a spreadsheet
    name = page.locator("#rows button", has_text="3.png")
    name.click()
    assert visit.answer() == expected(shapes, photo("PNG", 3))
    assert name.get_attribute("aria-current") == "true"
    page.click("#clear")
    assert page.locator("#many").is_hidden() and page.locator("#invite").is_visible()


def test_a_full_server_is_asked_again_and_never_much_at_once(visit: Visit) -> None:
    visit.refused = {503}
    page = visit.page
    page.add_init_script(
        """const own = window.fetch;
           window.most = 0;
           let now = 0;
           window.fetch = async (...given) => {
             window.most = Math.max(window.most, ++now);
             try { return await own(...given); } finally { now--; }
           };"""
    )
    refused: list[float] = []

    def full(route: Any) -> None:
        if len(refused) >= 3:
            route.continue_()
            return
        refused.append(time.monotonic())
        body = '{"error": {"code": "queue_full", "message": "Full.", "request_id": "1"}}'
        route.fulfill(status=503, headers={"retry-after": "1"}, content_type="application/json", body=body)

    page.route("**/predict?*", full)
    visit.open()
    page.wait_for_selector(".chips")
    visit.drop(*((f"{seed}.png", photo("PNG", seed)) for seed in range(12)))
    page.wait_for_selector("#csv:enabled")
    assert time.monotonic() - refused[0] >= 1
    assert page.text_content("#summary").startswith("12 pictures") and "not read" not in page.text_content("#summary")
    assert 1 < page.evaluate("window.most") <= 4
    assert page.locator("#again").is_hidden()


# ---- the camera ------------------------------------------------------------------------------------------------------


def test_the_camera_live_and_a_picture_of_it(visit: Visit) -> None:
    page = visit.open()
    page.wait_for_selector(".chips")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2].partition("?")[0]))
    page.click("#camera")
    visit.answer()
    page.evaluate("window.track = document.querySelector('#video').srcObject.getVideoTracks()[0]")
    until(lambda: page.wait_for_timeout(20) or asked.count("predict") >= 3)
    assert page.locator("#lamp").is_visible() and "a frame" in page.text_content("#time")
    page.check("#heat-on")
    page.wait_for_selector("#heat:not([hidden])")
    until(lambda: page.wait_for_timeout(20) or asked.count("explain") >= 2)
    page.uncheck("#heat-on")
    page.uncheck("#live")
    page.wait_for_timeout(400)
    count = len(asked)
    page.wait_for_timeout(500)
    assert len(asked) == count and page.locator("#lamp").is_hidden()
    page.click("#take")
    expect(page.locator("#caption")).to_contain_text("photo-1.jpg · ")
    visit.answer()
    assert page.evaluate("window.track.readyState") == "ended"
    assert page.evaluate("document.querySelector('#image').naturalWidth") >= 320


def test_the_camera_stops_when_the_page_is_out_of_sight(visit: Visit) -> None:
    page = visit.open()
    page.wait_for_selector(".chips")
    page.click("#camera")
    visit.answer()
    page.evaluate(
        """() => {
             window.track = document.querySelector("#video").srcObject.getVideoTracks()[0];
             Object.defineProperty(document, "hidden", { get: () => true });
             document.dispatchEvent(new Event("visibilitychange"));
           }"""
    )
    assert page.evaluate("window.track.readyState") == "ended"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(600)
    assert asked == [] and page.locator("#invite").is_visible()


# ---- models, keys, screens -------------------------------------------------------------------------------------------


def test_two_models_and_their_cards(visit: Visit, shapes: Path, tiny_bundle: Path) -> None:
    data = photo("PNG", 2)
    page = visit.open()
    page.wait_for_selector(".chips")
    visit.drop(("a.png", data))
    assert visit.answer() == expected(shapes, data)
    page.click("#about")
    card = page.text_content("#card").replace("\u00a0", " ")
    told = ["87.50 % of 1,200 test pictures", "1.23 % (ECE)", "plain, ", "with torch on shapes", "quick", "900 train"]
    for text in [*CLASSES, *told]:
        assert text in card
    with page.context.expect_page() as report:
        page.click("#report a")
    assert report.value.text_content("p") == "The report."
    report.value.close()
    page.click("#close")
    page.select_option("#model", "tiny")
    expect(page.locator("#title")).to_have_text("tiny")
    assert visit.answer() == expected(tiny_bundle, data)
    assert page.locator("#bars li").count() == 3 and "class" in page.text_content("#bars")


def test_a_server_that_asks_for_a_key(visiting: Visiting, keyed: Server, shapes: Path) -> None:
    visit = visiting(keyed)
    visit.refused = {401}
    page = visit.open()
    page.fill("#key", "not-the-key-of-this-server")
    page.keyboard.press("Enter")
    expect(page.locator("#key-title")).to_have_text("The server knows no such key.")
    assert "Send a key of this server" in page.text_content("dialog.ask")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".chips")
    visit.drop(("a.png", photo("PNG")))
    assert visit.answer() == expected(shapes, photo("PNG"))
    kept = page.evaluate("[JSON.stringify({ ...localStorage }), document.cookie, Object.values(sessionStorage)]")
    assert kept == ["{}", "", [KEY]] and KEY not in page.url
    page.click("#about")
    with page.expect_download() as download:
        page.click("#report button")
    assert "The report." in Path(download.value.path()).read_text()
    page.click("#close")
    page.click("#forget")
    page.wait_for_selector("dialog.ask")
    assert page.evaluate("Object.values(sessionStorage)") == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_small_and_dark_screens_and_no_motion(visiting: Visiting, site: Server, path: str) -> None:
    how = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark", "reduced_motion": "reduce"}
    visit = visiting(site, **how)
    visit.refused = {422}
    page = visit.open(path)
    page.wait_for_selector(".chips, .operation")
    if path == "/":
        visit.drop(("a.png", photo("PNG")), ("a-name-that-is-far-too-long-for-a-small-screen.png", photo("PNG", 1)))
        visit.answer()
        assert page.evaluate("getComputedStyle(document.querySelector('.rail i')).transitionDuration") == "0s"
    else:
        page.evaluate("for (const own of document.querySelectorAll('details')) own.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert max(red, green, blue) < 60
