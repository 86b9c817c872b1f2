"""From the rounds of a race to its table, its plots and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import serve_plot
import serve_race
import serve_tables
import serve_tally
from servers import PEERS, SERVERS, Server, Settings

PAGE = "# Serve\n\n<!-- bench-serving:start -->\nold\n<!-- bench-serving:end -->\n\nafter\n"
PLAN = {"connections": [1, 32], "rates": [100, 400], "seconds": [2.0, 3.0]}
MACHINE = {"cores": 2, "cpu": "A CPU", "virtual": True, "memory_bytes": 2**34, "gpus": [], "system": "Linux 6"}


def one_load(loop: str, at: int, rate: float, p99: float, **more: Any) -> dict[str, Any]:
    requests = round(rate * 2)
    key = {"closed": "connections", "open": "rate"}[loop]
    return {
        "loop": loop, key: at, "requests": requests, "ok": requests, "in_window": requests, "wrong": 0,
        "by_status": {"200": requests}, "errors": {}, "requests_per_second": rate,
        "latency_ms": {"p50": p99 / 4, "p90": p99 / 2, "p99": p99, "max": p99 * 2},
        "client": {"cpu_seconds": 0.1, "cores": 0.05},
        "server": {"seconds": 2, "cpu_seconds": requests * 0.005, "resident_bytes": 3e8, "proportional_bytes": 2e8},
        "others_cores": 0.01, "steal_share": 0.0, **more,
    }  # fmt: skip


def record(name: str, round_: int, speed: float, **more: Any) -> dict[str, Any]:
    loads = [
        one_load("closed", 1, speed / 2, 9),
        one_load("closed", 32, speed, 70),
        one_load("open", 100, 100, 12.3),
        one_load("open", 400, 400, 900 if speed > 300 else 1500),
    ]
    agreement = {"furthest": 4e-7, "photos": 200, "same_class": 193}
    return {"server": name, "round": round_, "why": None, "loads": loads, "ready_seconds": 2.5, "stop_seconds": 0.1,
            "agreement": agreement, "command": f"{name} PORT", "commit": "abc", "busy_before": 0.0, **more}  # fmt: skip


SPEEDS = {"tenfold": (800, 900, 1000), "flask": (200, 210, 190), "litserve": (300, 280, 290),
          "litserve-batch": (250, 350, 320)}  # fmt: skip


@pytest.fixture
def summary() -> dict[str, Any]:
    runs = [record(name, i, speed) for name, speeds in SPEEDS.items() for i, speed in enumerate(speeds)]
    runs.append(record("flask", 3, 1, why="it ended with exit code 1", loads=[]))
    known = {server.name: server for server in SERVERS}
    generator = one_load("closed", 32, 20_000, 3)
    pictures = {"count": 200, "width": 500, "height": 375, "bytes": {"min": 32_000, "max": 64_000, "mean": 47_000}}
    servers = [serve_tally.summarise(known[name], runs, {"python": "3"}) for name in SPEEDS]
    found = {"machine": MACHINE, "date": "2026-01-02T03:04:05+00:00", "commit": ["abc"], "command": "python x",
             "idle_machine": True, "pictures": pictures, "plan": PLAN, "generator": generator,
             "left_out": {"bentoml": "no such module"}, "servers": servers, "runs": runs}  # fmt: skip
    return json.loads(json.dumps(found))  # as it is read from the file


def test_the_figures_of_a_server(summary: dict[str, Any]) -> None:
    flask = summary["servers"][1]
    assert flask["n"] == 3 and flask["failed"] == ["it ended with exit code 1"]
    found = flask["closed"]["32"]
    assert found["requests_per_second"] == {"median": 200, "min": 190, "max": 210}
    assert found["server_ms_per_request"]["median"] == pytest.approx(5) and found["requests"] == 1200
    assert flask["open"]["400"]["kept_up"] == 0 and flask["open"]["100"]["kept_up"] == 3


def test_the_faster_form_is_quoted(summary: dict[str, Any]) -> None:
    shown, rest = serve_tally.quoted(summary)
    assert [s["name"] for s in shown] == ["tenfold", "flask", "litserve-batch"]
    assert [s["name"] for s in rest] == ["litserve"]


def test_how_many_times_is_of_the_same_round(summary: dict[str, Any]) -> None:
    own, flask, *_ = summary["servers"]
    found = serve_tally.times(own, flask, summary["runs"], 32)
    assert found == {"median": 900 / 210, "min": 800 / 200, "max": 1000 / 190}


def test_the_tables(summary: dict[str, Any]) -> None:
    text = serve_tables.full(summary)
    assert "| tenfold serve | 450 (400 to 500) | 900 (800 to 1,000) | 18, 70 ms | 5.0 ms | 200 MB | 2.5 s |" in text
    assert "| Flask + PyTorch, `flask run` | 3.1, 12 | – |" in text
    assert "| LitServe, batches up to 16 | 3.1, 12 | 225, 900 (2 of 3) |" in text
    assert "- 4.3 (4.0 to 5.3) times as many requests a second as Flask + PyTorch, `flask run`" in text
    assert "LitServe, measured too: 290 (280 to 300) requests/s at 32 connections" in text
    assert "bentoml was left out: no such module" in text
    assert "failed 1 times: it ended with exit code 1" in text
    assert "within 4e-07 of" in text and "tenfold serve 193" in text
    assert "not idle" not in text and "not idle" in serve_tables.full({**summary, "idle_machine": False})


def test_what_was_not_answered_is_told(summary: dict[str, Any]) -> None:
    loads = summary["servers"][0]["closed"]["32"]
    loads["by_status"]["503"], loads["errors"]["closed"] = 7, 2
    summary["servers"][0]["wrong"] = 1
    text = serve_tables.full(summary)
    assert "2 closed" in text and "7 503" in text and "gave 1 answers of another picture" in text


def test_who_was_disturbed_is_told(summary: dict[str, Any]) -> None:
    assert "cores meanwhile" not in serve_tables.full(summary)
    summary["servers"][1] |= {"others_cores": 0.4, "steal_share": 0.02}
    text = serve_tables.full(summary)
    assert "so many cores meanwhile: Flask + PyTorch, `flask run` 0.40\n" in text and "took up to 2.0 %" in text


def test_the_command_names_no_folder_of_this_machine() -> None:
    argv = [
        "flask",
        "--out",
        "/elsewhere/x.json",
        f"--run={serve_race.ROOT / 'runs' / 'a'}",
        "--python",
        "serving=/p/y",
    ]
    assert serve_race._plain_call(argv).endswith("serve_race.py flask --out PATH --run=runs/a --python serving=PATH")


def test_the_page_is_written_between_its_markers(summary: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "serve.md"
    page.write_text(PAGE)
    serve_tables.write(summary, page)
    text = page.read_text()
    assert text.startswith("# Serve\n\n<!-- bench-serving:start -->\n2 cores of A CPU") and "\nold\n" not in text
    assert text.endswith("<!-- bench-serving:end -->\n\nafter\n") and "svg" not in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="serve"):
        serve_tables.write(summary, page)


def test_the_plots(summary: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serving.json"
    file.write_text(json.dumps(summary))
    images = tmp_path / "images"
    monkeypatch.setattr("sys.argv", ["serve_plot.py", str(file), "--out", str(images)])
    assert serve_plot.main() == 0
    assert sorted(path.name for path in images.iterdir()) == sorted(
        f"serving-{name}.{kind}" for name in ("latency", "throughput") for kind in ("png", "svg")
    )
    assert serve_plot.lines(summary)[0] == ("tenfold serve", [100, 400], [12.3, 900])
    assert serve_plot.lines(summary)[2] == ("LitServe, batches up to 16", [100], [12.3])  # 400 in two rounds of three
    page = tmp_path / "serve.md"
    page.write_text(PAGE)
    serve_tables.write(summary, page)
    assert "](images/serving-latency.svg)" in page.read_text()


def test_a_race_goes_on_with_its_own_records_only(tmp_path: Path) -> None:
    file = tmp_path / "serving.runs.jsonl"
    assert serve_race.stored(file, PLAN) == []
    here = serve_race.machine.describe()
    lines = [json.dumps(record("flask", i, 1, plan=PLAN, machine=here)) for i in range(2)]
    file.write_text("\n".join(lines)[:-5])  # stopped while it wrote
    assert [r["round"] for r in serve_race.stored(file, PLAN)] == [0]
    with pytest.raises(serve_race.RaceError, match="--fresh"):
        serve_race.stored(file, {**PLAN, "rates": [1]})


@pytest.mark.parametrize("server", SERVERS, ids=lambda s: s.name)
def test_commands_name_what_is_there(server: Server, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "run", tmp_path, 2, {"tenfold": "/t/bin/python", "serving": "/s/bin/python"})
    command = server.command(settings, 8123)
    assert command[0].startswith(("/t/bin/", "/s/bin/"))
    assert any("8123" in word for word in command)
    modules = [word.split(":")[0].removesuffix(".py") for word in command if "_app" in word]
    assert all((PEERS / f"{module}.py").is_file() for module in modules)
    plain = serve_race._plain(server, command, settings, 8123)
    assert "PORT" in plain and "8123" not in plain and str(tmp_path) not in plain


def test_a_server_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve_race.main(["triton"]) == 2
    assert "There is no server triton" in capsys.readouterr().err
