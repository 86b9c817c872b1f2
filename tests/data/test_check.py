from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data import load_dataset
from tenfold.data.alike import Pool, alike
from tenfold.data.check import Checked, Finding, check
from tenfold.data.check_page import page, verdict
from tenfold.data.dataset import Dataset, Geometry, Split


def scenes(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 pictures with structure at every scale and nothing in common."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, side, side, 3))
    for cells in (4, 8, 16):
        coarse = rng.normal(size=(count, cells, cells, 3))
        total += coarse.repeat(side // cells, 1).repeat(side // cells, 2) / cells**0.5
    return np.clip(128 + 70 * total, 0, 255).astype(np.uint8)


def dataset(train: np.ndarray, test: np.ndarray, *, labels: dict[str, list[int]] | None = None) -> Dataset:
    """Two classes in turn, unless ``labels`` says otherwise; no validation split."""

    def split(name: str, images: np.ndarray) -> Split:
        given = (labels or {}).get(name)
        codes = np.array(given if given is not None else np.arange(len(images)) % 2, np.int64)
        return Split(images, codes, [f"{name}/{i}" for i in range(len(images))])

    none = np.empty((0, *train.shape[1:]), np.uint8)
    return Dataset(
        name="made",
        source="made",
        classes=("left", "right"),
        splits={"train": split("train", train), "val": split("val", none), "test": split("test", test)},
        geometry=Geometry(*train.shape[1:3]),
    )


def found(checked: Checked) -> dict[str, Finding]:
    return {f.name: f for f in checked.findings}


def origins(checked: Checked, finding: Finding) -> list[list[str]]:
    return [[checked.pool.origin(i) for i in group.pictures] for group in finding.groups]


def test_clean_data_has_no_findings() -> None:
    images = scenes(60)
    checked = check(dataset(images[:40], images[40:]))
    assert checked.findings == ()
    assert verdict(checked) == "Nothing to complain of."


def test_a_leak_is_found_exact_or_near() -> None:
    images = scenes(60)
    test = images[40:].copy()
    test[3] = images[7]
    test[5] = images[9] // 2 + 60
    checked = check(dataset(images[:40], test, labels={"test": [1 - i % 2 if i == 3 else 1 for i in range(20)]}))
    leak = found(checked)["test-leak"]
    assert leak.severity == "error"
    assert leak.count == 2
    assert "2 of 20 test pictures (10.00 %): 1 exactly, 1 as near duplicates" in leak.text
    assert origins(checked, leak) == [["train/7", "test/3"], ["train/9", "test/5"]]
    assert [g.exact for g in leak.groups] == [True, False]


def test_the_same_picture_under_two_labels() -> None:
    images = scenes(40)
    images[10] = images[3]
    images[21] = 255 - (255 - images[5]) // 2
    labels = [0] * 20 + [1] * 20
    labels[10] = 1
    checked = check(dataset(images, scenes(10, seed=1), labels={"train": labels}))
    by_name = found(checked)
    assert origins(checked, by_name["labels"]) == [["train/3", "train/10"]]
    assert by_name["labels"].severity == "error"
    assert origins(checked, by_name["near-labels"]) == [["train/5", "train/21"]]
    assert by_name["near-labels"].severity == "warning"
    assert by_name["duplicates"].count == by_name["near-duplicates"].count == 1
    assert "test-leak" not in by_name


def test_a_near_group_does_not_repeat_what_its_exact_copies_say() -> None:
    images = scenes(40)
    images[10] = images[3]
    images[11] = images[3] // 2 + 60
    labels = [0] * 20 + [1] * 20
    labels[10] = 1
    by_name = found(check(dataset(images, scenes(10, seed=1), labels={"train": labels})))
    assert by_name["labels"].count == 1
    assert "near-labels" not in by_name
    assert by_name["duplicates"].count == 1
    assert by_name["near-duplicates"].count == 1


def test_groups_are_joined_through_others() -> None:
    images = scenes(30)
    first = images[0].astype(int)
    chain = np.stack([images[0], np.clip(first * 0.7 + 20, 0, 255), np.clip(first * 0.5 + 90, 0, 255)]).astype(np.uint8)
    like = alike(Pool.of(dataset(images, np.concatenate([chain, scenes(5, seed=3)]))))
    assert [g.pictures for g in like.groups] == [(0, 30, 31, 32)]
    assert not like.groups[0].exact
    assert [g.pictures for g in like.exact] == [(0, 30)]


def test_blank_dark_and_bright_pictures() -> None:
    images = scenes(60)
    rng = np.random.default_rng(0)
    images[4] = 77
    images[5] = rng.integers(0, 20, images[5].shape)
    images[6] = rng.integers(236, 256, images[6].shape)
    checked = check(dataset(images, scenes(10, seed=1)))
    assert {name: f.pictures for name, f in found(checked).items()} == {"blank": (4,), "dark": (5,), "bright": (6,)}


def test_data_that_is_dark_altogether_is_not_odd() -> None:
    dark = scenes(40) // 14
    assert "dark" not in found(check(dataset(dark[:30], dark[30:])))


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ([0] * 20 + [1] * 20, [0] * 10, {"absent": "warning"}),
        ([0] * 40, [0] * 5 + [1] * 5, {"absent": "error", "few": "warning"}),
        ([0] * 32 + [1] * 8, [0, 1] * 5, {"few": "warning", "imbalance": "warning"}),
        ([0] * 28 + [1] * 12, [0, 1] * 5, {}),
    ],
)
def test_classes(train: list[int], test: list[int], expected: dict[str, str]) -> None:
    images = scenes(50)
    checked = check(dataset(images[:40], images[40:], labels={"train": train, "test": test}))
    assert {f.name: f.severity for f in checked.findings} == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty files of 40×32 pixels in two classes, three of them broken, one long, one tiny, one copied."""
    root = tmp_path / "photos"
    for i, image in enumerate(scenes(60)):
        place = root / ("left" if i % 2 else "right & <b>")
        place.mkdir(parents=True, exist_ok=True)
        size = {10: (200, 32), 11: (5, 4)}.get(i, (40, 32))
        Image.fromarray(image).resize(size).save(place / f"{i:02}.png")
    (root / "left" / "empty.png").write_bytes(b"")
    (root / "left" / "text.jpg").write_text("no picture")
    content = (root / "left" / "01.png").read_bytes()
    (root / "left" / "half.png").write_bytes(content[: len(content) // 2])
    (root / "left" / "copy.png").write_bytes(content)
    return root


def test_files(folder: Path) -> None:
    checked = check(load_dataset(folder))
    by_name = found(checked)
    unreadable = by_name["unreadable"]
    assert unreadable.severity == "error"
    assert [row["file"] for row in unreadable.rows] == ["left/empty.png", "left/half.png", "left/text.jpg"]
    assert all(row["reason"] for row in unreadable.rows)
    assert by_name["shape"].rows == ({"file": "right & <b>/10.png", "size": "200×32"},)
    assert by_name["size"].rows == ({"file": "left/11.png", "size": "5×4"},)
    copies = [o for f in checked.findings for group in origins(checked, f) for o in group]
    assert {"left/01.png", "left/copy.png"} == set(copies)
    assert len(checked.headers) == 61


def test_json_holds_every_finding(folder: Path) -> None:
    checked = check(load_dataset(folder))
    kept = json.loads(json.dumps(checked.to_dict(), allow_nan=False))
    assert kept["errors"] == checked.count("error")
    assert kept["dataset"]["counts"].keys() == {"train", "val", "test"}
    assert sum(sum(c) for c in kept["dataset"]["counts"].values()) == 61
    pair = next(f for f in kept["findings"] if f["groups"])["groups"][0]
    assert [p["origin"] for p in pair["pictures"]] == ["left/01.png", "left/copy.png"] or pair["exact"]


def test_the_page_shows_pictures_and_lets_no_name_in_unescaped(folder: Path) -> None:
    checked = check(load_dataset(folder))
    html = page(checked)
    assert "<b>" not in html.replace("<b>1</b>", "").replace("<b>3</b>", "")
    assert "right &amp; &lt;b&gt;" in html
    assert html.count("data:image/png;base64,") >= 4
    assert "http" not in html.replace("http-equiv", "")
    for finding in checked.findings:
        assert f'id="{finding.name}"' in html
        assert f'href="#{finding.name}"' in html


def test_the_page_is_bounded_and_says_what_it_leaves_out() -> None:
    images = scenes(130)
    checked = check(dataset(images, images))
    leak = found(checked)["test-leak"]
    assert len(leak.groups) == 130
    html = page(checked)
    assert html.count("<figure>") <= 2 * 48 * (len(checked.findings))
    assert "And 82 groups more, in check.json." in html


def test_a_large_group_shows_both_sides_of_a_leak() -> None:
    images = scenes(60)
    images[:30] = images[0]
    html = page(check(dataset(images[:59], images[:1])))
    leak = html.split('id="test-leak"')[1].split("</section>")[0]
    assert leak.count("<figure>") == 8
    assert 'class="test"' in leak
    assert "23 more not shown" in leak


def test_empty_and_single_pictures_do_no_harm() -> None:
    none = np.empty((0, 16, 16, 3), np.uint8)
    assert check(dataset(none, none)).findings == ()
    assert {f.name for f in check(dataset(scenes(1, 16), none)).findings} == {"absent", "few"}
    assert page(check(dataset(none, none))).endswith("</html>\n")


def test_progress_reaches_its_end() -> None:
    heard = []
    images = scenes(30)
    check(dataset(images[:20], images[20:]), heard.append)
    assert {p.stage for p in heard} >= {"describe", "search", "search mirrored", "light"}
    last = {p.stage: p for p in heard}
    assert all(p.done == p.total for p in last.values())
    assert last["light"].total == last["describe"].total == 30
