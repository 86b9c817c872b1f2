"""``tenfold predict`` as a person and as a script meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold import load
from tenfold.bundle import store
from tenfold.cli import pictures, render
from tenfold.cli.app import run
from tenfold.errors import CallError


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures at two depths, and files that are none."""
    base = tmp_path / "photos"
    picture(base / "b.png", 1)
    picture(base / "a.JPG", 2)
    picture(base / "deep" / "er" / "c.webp", 3)
    for other in ("notes.txt", ".hidden.png", ".thumbnails/d.png"):
        (base / other).parent.mkdir(exist_ok=True)
        (base / other).write_text("no picture")
    return base


def names(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


# ---- what is printed ---------------------------------------------------------------------------------------


def test_a_line_for_a_picture(bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder / "b.png")
    assert run(["predict", str(bundle_folder.parent), path]) == 0
    out, err = capsys.readouterr()
    top = load(bundle_folder).predict(path).top
    assert out == "\t".join([path, *(f"{name}\t{p:.4f}" for name, p in top)]) + "\n"
    assert err == ""


def test_columns_in_a_terminal(
    bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.chdir(folder)
    long = picture(Path("a much longer name.png"))
    assert run(["predict", str(bundle_folder), "b.png", str(long), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.index("class") for line in lines] == [len(str(long)) + 2] * 2
    assert len({len(line) for line in lines}) == 1 and all(line.endswith(" %") for line in lines)
    assert "\t" not in "".join(lines)


def test_json(bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = folder / "bad.png"
    bad.write_bytes(b"")
    code = run(["predict", str(bundle_folder), str(folder), "none.png", "--top", "2", "--json"])
    out, err = capsys.readouterr()
    value = json.loads(out)
    assert code == 1 and set(value) == {"model", "predictions", "failed"} and value["model"] == "tiny-run"
    paths = [str(folder / name) for name in ("a.JPG", "b.png", "deep/er/c.webp")]
    assert [p["path"] for p in value["predictions"]] == paths
    for given in value["predictions"]:
        assert [set(t) for t in given["top"]] == [{"class", "probability"}] * 2
        assert 1 >= given["top"][0]["probability"] >= given["top"][1]["probability"] >= 0
    assert value["failed"] == [
        {"path": "none.png", "reason": "there is no such file."},
        {"path": str(bad), "reason": "the file is empty."},
    ]
    assert err.splitlines() == [
        "Error: none.png: there is no such file.",
        f"Error: {bad}: the file is empty.",
    ]


def test_names_cannot_steer_the_terminal(
    bundle_content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    content = dataclasses.replace(bundle_content(), classes=("\x1b[2J\x1b]0;x\x07", "a\tb\nc", "ok"))
    bundle = store.write(tmp_path / "model", content).path
    path = picture(tmp_path / "tab\there\nand \x1b[31m.png")
    (tmp_path / "bad\x1b.png").write_bytes(b"")
    assert run(["predict", str(bundle), str(path), str(tmp_path / "bad\x1b.png")]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out and out.count("\n") == 1 and err.count("\n") == 1
    assert len(out.split("\t")) == 7 and "a\\tb\\nc" in out and "tab\\there\\nand \\x1b[31m.png" in out


# ---- what is taken ------------------------------------------------------------------------------------------


def test_folders_files_and_patterns(
    bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for given, found in {
        ".": ["./a.JPG", "./b.png", "./deep/er/c.webp"],
        "deep": ["deep/er/c.webp"],
        "*": ["a.JPG", "b.png"],
        "**": ["a.JPG", "b.png", "deep/er/c.webp"],
        "**/*.webp": ["deep/er/c.webp"],
        "[ab].*": ["a.JPG", "b.png"],
        f"{folder}/?.png": [f"{folder}/b.png"],
    }.items():
        assert run(["predict", str(bundle_folder), given]) == 0, given
        assert names(capsys) == found
    assert run(["predict", str(bundle_folder), "deep", "b.png", "b.png"]) == 0
    assert names(capsys) == ["deep/er/c.webp", "b.png", "b.png"]


def test_a_file_whose_name_looks_like_a_pattern(
    bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picture(folder / "photo [1].png")
    assert run(["predict", str(bundle_folder), str(path)]) == 0
    assert names(capsys) == [str(path)]


def test_links_are_read_and_linked_folders_are_not_entered(folder: Path, tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "o.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "other").symlink_to(outside.parent)
    found, missing = pictures.find([str(folder)])
    assert [Path(p).name for p in found] == ["a.JPG", "b.png", "c.webp", "link.png"] and missing == []


def test_standard_input(bundle_folder: Path, folder: Path) -> None:
    def piped(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "tenfold", "predict", str(bundle_folder), "-", *arguments]
        return subprocess.run(command, input=data, capture_output=True)

    path = folder / "b.png"
    done = piped(path.read_bytes(), str(path))
    first, second = done.stdout.decode().splitlines()
    assert done.returncode == 0 and first.startswith("-\t")
    assert first.split("\t")[1:] == second.split("\t")[1:]
    done = piped(b"")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode() == "Error: standard input: the file is empty.\n"


def test_standard_input_once_and_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(CallError, match="once"):
        pictures.find(["-", "-"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(CallError, match="is a terminal"):
        pictures.find(["-"])


@pytest.mark.parametrize(
    "sources, said",
    [
        (["nothing.jpg"], "nothing.jpg: there is no such file."),
        (["*.tiff"], "*.tiff: no picture matches."),
        (["empty"], "empty: the folder holds no pictures."),
        (["x" * 5000], "there is no such file."),
    ],
)
def test_no_picture_at_all_is_a_wrong_call(
    bundle_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sources: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(["predict", str(bundle_folder), *sources]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "No picture was found." in err and said in err


def test_wrong_calls(bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in {
        ("--top", "0"): "--top must be 1 or more",
        ("--csv", "no/folder/x.csv"): "mkdir -p no/folder",
        ("--csv", str(folder)): "this is a folder",
        ("--tpo", "3"): "Did you mean --top?",
    }.items():
        assert run(["predict", str(bundle_folder), str(folder), *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and said in err
    for missing in ("nothing", "model.onnx", "x" * 5000, "x" * 5000 + ".onnx"):
        assert run(["predict", str(folder / missing), str(folder)]) == 2
        assert "no run, bundle or model" in (err := capsys.readouterr().err) or "File name too long" in err


def test_what_is_below_the_threshold_is_said(
    bundle_content: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for threshold, unknown in ((1.0, True), (0.0, False)):
        bundle = str(store.write(tmp_path / f"{threshold}", bundle_content(threshold=threshold)).path)
        table = tmp_path / f"{threshold}.csv"
        assert run(["predict", bundle, str(folder), "--csv", str(table)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 and all(line.endswith("\tunknown") == unknown for line in lines)
        rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))
        assert {row["unknown"] for row in rows} == {"yes" if unknown else ""}
        assert run(["predict", bundle, str(folder), "--json"]) == 0
        assert {p["unknown"] for p in json.loads(capsys.readouterr().out)["predictions"]} == {unknown}


# ---- CSV ----------------------------------------------------------------------------------------------------


def test_csv(bundle_folder: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_bytes(b"")
    table = tmp_path / "out.csv"
    assert run(["predict", str(bundle_folder), str(folder), "--top", "9", "--csv", str(table)]) == 1
    assert len(names(capsys)) == 3
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    heads = "path,class,probability,class_2,probability_2,class_3,probability_3,unknown,error"
    assert table.read_text().splitlines()[0] == heads
    assert [Path(r["path"]).name for r in rows] == ["a.JPG", "b.png", "bad.png", "c.webp"]
    top = load(bundle_folder).predict(rows[1]["path"]).top
    assert rows[1]["class_3"] == top[2][0] and float(rows[1]["probability_3"]) == pytest.approx(top[2][1], rel=1e-5)
    assert rows[1]["error"] == "" and rows[2]["class"] == "" and rows[2]["error"] == "the file is empty."


def test_csv_holds_no_formulas(bundle_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    classes = ("=HYPERLINK(1)", "@SUM(1)", 'a "quoted", one')
    bundle = store.write(tmp_path / "model", dataclasses.replace(bundle_content(), classes=classes)).path
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "+1.png")
    assert run(["predict", str(bundle), "+1.png", "--csv", "out.csv"]) == 0
    cells = next(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert cells["path"] == "'+1.png"
    assert {cells["class"], cells["class_2"], cells["class_3"]} == {"'=HYPERLINK(1)", "'@SUM(1)", 'a "quoted", one'}


def test_csv_is_whole_or_as_before(bundle_folder: Path, folder: Path, tmp_path: Path) -> None:
    """The model fails in the middle: the table of the last time stays."""
    (tmp_path / "out.csv").write_text("of the last time")
    (bundle_folder / "golden.safetensors").write_bytes(b"damaged")
    assert run(["predict", str(bundle_folder), str(folder), "--csv", str(tmp_path / "out.csv")]) == 1
    assert (tmp_path / "out.csv").read_text() == "of the last time"


# ---- many ---------------------------------------------------------------------------------------------------


def test_many_pictures_show_progress(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "QUICK_SECONDS", 0.0)
    one = picture(tmp_path / "one.png").read_bytes()
    for i in range(150):
        (tmp_path / f"{i:03d}.png").write_bytes(one)
    assert run(["predict", str(bundle_folder), str(tmp_path), "--top", "1"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 151 and "predict: 151/151 images" in err


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_bars_on_the_terminal_leave_redirected_lines_alone(bundle_folder: Path, tmp_path: Path) -> None:
    """Rich puts its own file in the place of standard output while bars are drawn; the answers must not go there."""
    import pty

    one = picture(tmp_path / "p" / "one.png").read_bytes()
    for i in range(100):
        (tmp_path / "p" / f"{i:03d}.png").write_bytes(one)
    (tmp_path / "p" / "bad.png").write_bytes(b"")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tenfold", "predict", str(bundle_folder), str(tmp_path / "p")]
    with (tmp_path / "out.tsv").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=theirs)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    assert child.wait(60) == 1
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == 101
    assert b"predict" in shown and b"images" in shown and b"class 0" not in shown
    assert b"the file is empty" in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says EIO when the other end is closed
        return b""


def test_a_closed_pipe_ends_quietly(bundle_folder: Path, tmp_path: Path) -> None:
    one = picture(tmp_path / "one.png").read_bytes()
    for i in range(300):
        (tmp_path / f"{'long' * 40}{i:03d}.png").write_bytes(one)
    command = f"{sys.executable} -m tenfold predict {bundle_folder} {tmp_path} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1 and "Traceback" not in done.stderr and "Broken" not in done.stderr


# ---- abuse: one line, soon, in little memory ----------------------------------------------------------------


def huge_png() -> bytes:
    """13,370 × 13,370 pixels in a few kilobytes: half a gigabyte once decoded."""
    import struct

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(13_370 * (13_370 // 8 + 2)), 1)
    header = struct.pack(">IIBBBBB", 13_370, 13_370, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def half_a_jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()[: len(file.getvalue()) // 2]


ABUSE = {
    "huge.png": (huge_png, "the picture is 13,370×13,370 pixels"),
    "half.jpg": (half_a_jpeg, "cut short"),
    "empty.png": (lambda: b"", "the file is empty."),
    "drawing.jpg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawing (SVG or XML)"),
    "noise.jpg": (lambda: os.urandom(5000), "not a picture"),
}


@pytest.mark.parametrize("name", ABUSE)
def test_bad_pictures_cost_a_line(bundle_folder: Path, tmp_path: Path, name: str) -> None:
    make, said = ABUSE[name]
    path = tmp_path / name
    path.write_bytes(make())
    code = (
        "import sys, os\n"
        "from tenfold.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "from tenfold import hardware\n"
        "print(code, sum(os.times()[:2]), hardware.peak_memory_bytes())\n"
    )
    command = [sys.executable, "-c", code, "predict", str(bundle_folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"Error: {path}: ") and said in done.stderr
    code, seconds, memory = done.stdout.split()
    assert code == "1"
    assert float(seconds) < 1  # of the processor, so that a busy machine doesn't fail this
    assert 0 < int(memory) < 100e6


@pytest.mark.filterwarnings("ignore:Image size")  # pytest shows what the decoder has silenced
def test_one_bad_picture_does_not_stop_the_others(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (make, _) in ABUSE.items():
        (tmp_path / name).write_bytes(make())
    sound = [picture(tmp_path / name) for name in ("a.png", "m.png", "z.png")]
    assert run(["predict", str(bundle_folder), str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(p) for p in sound]
    assert len(err.splitlines()) == len(ABUSE)


def test_a_damaged_bundle_costs_a_line(bundle_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle_folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert run(["predict", str(bundle_folder), str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2 and "model.onnx is not the file" in err


# ---- what it may import ---------------------------------------------------------------------------------------

FORBIDDEN = (
    "torch", "torchvision", "onnx", "pydantic", "yaml", "rich", "matplotlib", "safetensors", "sklearn", "scipy",
    "importlib.metadata", "concurrent.futures", "asyncio", "http", "ssl", "email", "multiprocessing",
    "tenfold.recipe", "tenfold.training", "tenfold.run", "tenfold.evaluation", "tenfold.architecture",
    "tenfold.engines", "tenfold.export", "tenfold.data.sources", "tenfold.bundle.golden", "tenfold.explanation",
    "tenfold.runtimes.nodes",
)  # fmt: skip


def test_one_picture_imports_little(bundle_folder: Path, folder: Path) -> None:
    """The start of a process is imports: what creeps in here is paid by every call."""
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "tenfold",
        "predict",
        str(bundle_folder),
        str(folder / "b.png"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "onnxruntime" in imported and "tenfold.predict" in imported
    assert sorted(m for m in imported for f in FORBIDDEN if m == f or m.startswith(f + ".")) == []
