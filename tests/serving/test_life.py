"""A server's beginning and end, workers that die, models that change, more requests than it can take."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from serving_client import png, serving, slow, until

from tenfold.bundle import store


def failing(*arguments: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """(exit code, standard error) of a ``tenfold serve`` that ends by itself."""
    command = [sys.executable, "-m", "tenfold", "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})})
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


# ---- beginning ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_served_is_said_in_a_line(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    weights = broken / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    for arguments, code, said in (
        ([tmp_path / "nothing"], 2, "no run, bundle or model"),
        ([broken], 1, "is not the file that the bundle was written with"),
        ([tiny_bundle, "--workers", "none"], 2, "--workers"),
        ([tiny_bundle, "--port", "70000"], 2, "--port"),
        ([tiny_bundle, "--max-body", "lots"], 2, "--max-body"),
        ([tiny_bundle, "--threshold", "2"], 2, "--threshold"),
        ([tiny_bundle, "--runtime", "cafe"], 2, "runtime"),
        ([tiny_bundle, "--log", "xml"], 2, "--log"),
        ([tiny_bundle, "--api-key-file", tmp_path / "none"], 2, "No such file"),
        ([tiny_bundle, "--api-key-file", keys], 2, "too short"),
        ([tiny_bundle, tiny_bundle], 2, "Two models are called tiny-run"),
        ([tiny_bundle, "--host", "192.0.2.1"], 2, "Can't listen on 192.0.2.1"),
    ):
        found = failing(*arguments, "--port", "0") if "--port" not in arguments else failing(*arguments)
        assert found[0] == code and said in found[1], (arguments, found)
        assert len(found[1].strip().splitlines()) <= 2, found[1]


def test_a_port_in_use(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = failing(tiny_bundle, "--port", str(taken.getsockname()[1]))
    assert code == 2 and "in use" in said and "--port" in said


def test_a_missing_extra_names_the_command(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'uvicorn' else find(name, *rest)\n"
    )
    code, said = failing(tiny_bundle, env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert code == 2 and "pip install 'tenfold[serve]'" in said


def test_nothing_of_a_framework_is_imported(tiny_bundle: Path) -> None:
    code = (
        "import sys, tenfold.serving.server, tenfold.serving.handler as h\n"
        f"spec = dict(role='both', paths={{'a': {str(tiny_bundle)!r}}}, runtime='onnxruntime', device='auto',"
        " threads=1, threshold=None, max_pixels=10**6, max_parts=4)\n"
        "h.Handler.start(spec)\n"
        "print(sorted({'torch', 'tensorflow', 'jax', 'keras', 'tinygrad', 'matplotlib', 'pydantic', 'onnx', 'pandas'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_probes_are_answered_while_models_are_loaded(tiny_bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif any('serving.worker' in a for a in sys.orig_argv): time.sleep(3)\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with serving(tiny_bundle, "--port", str(port), "--workers", "1", folder=tmp_path, wait=False, **env) as server:
        server.port = port

        def live() -> bool:
            try:
                return server.get("/v2/health/live").status == 200
            except OSError:
                return False

        until(live)
        assert server.get("/v2/health/ready").status == 503 and server.get("/ping").status == 503
        reply = server.post("/predict", png())
        assert (reply.status, reply.code) == (503, "not_ready") and reply.headers["retry-after"] == "1"
        until(lambda: server.get("/v2/health/ready").status == 200)
        assert server.post("/predict", png()).status == 200
        assert server.stop() == 0


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hundred_requests_under_way_are_answered_before_the_end(
    tiny_bundle: Path, tmp_path: Path, number: int
) -> None:
    with (
        serving(tiny_bundle, "--workers", "2", "--deadline", "60", folder=tmp_path) as server,
        concurrent.futures.ThreadPoolExecutor(100) as threads,
    ):
        picture = slow(2)
        asked = [threads.submit(server.post, "/predict", picture, None, 60) for _ in range(100)]
        until(lambda: server.figure("tenfold_queue_bytes") > 95 * len(picture))
        assert server.figure("tenfold_queue_depth") > 50, "most are still waiting"
        workers = server.workers()
        began = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - began < 30
        replies = [a.result() for a in asked]
    assert [r.status for r in replies] == [200] * 100
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_stopped_while_the_models_are_loaded(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif any('serving.worker' in a for a in sys.orig_argv): time.sleep(60)\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with serving(tiny_bundle, folder=tmp_path, wait=False, **env) as server:
        until(lambda: bool(server.workers()))
        time.sleep(0.5)
        assert server.stop(timeout=15) == 0


def test_workers_end_with_the_front(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "2", folder=tmp_path) as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        until(lambda: not any(_alive(pid) for pid in workers))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ---- workers that die -----------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_no_request_is_lost(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "2", folder=tmp_path) as server:
        stop = threading.Event()
        statuses: list[int] = []

        def ask() -> None:
            while not stop.is_set():
                statuses.append(server.post("/predict", png()).status)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(3):
            until(lambda: server.figure("tenfold_workers") == 2)
            os.kill(server.workers()[0], signal.SIGKILL)
            until(lambda turn=turn: server.figure("tenfold_worker_restarts_total") == turn + 1)  # type: ignore[misc]
            assert server.get("/v2/health/ready").status == 200, "the other one answers"
        until(lambda: server.figure("tenfold_workers") == 2)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200} and len(statuses) > 20
        assert len(server.workers()) == 2 and "ended by signal 9" in server.log.read_text()


def test_readiness_is_told_truthfully(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "1", folder=tmp_path) as server:
        [worker] = server.workers()
        os.kill(worker, signal.SIGKILL)
        seen = set()
        until(lambda: seen.add(server.get("/v2/health/ready").status) or 503 in seen)  # type: ignore[func-returns-value]
        assert server.get("/v2/health/live").status == 200
        assert server.post("/predict", png()).status == 200, "waits for the worker that is being started"
        assert server.get("/v2/health/ready").status == 200


def test_a_request_whose_worker_dies_twice_is_given_up(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "1", "--deadline", "60", folder=tmp_path) as server:
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            asked = threads.submit(server.post, "/predict", slow(49), None, 60)
            for turn in (0, 1):
                until(lambda turn=turn: server.figure("tenfold_worker_restarts_total") == turn)  # type: ignore[misc]
                until(lambda: server.figure("tenfold_workers") == 1)
                until(lambda: server.figure("tenfold_queue_bytes") > 0)
                time.sleep(0.3)
                os.kill(server.workers()[0], signal.SIGKILL)
            reply = asked.result()
        assert (reply.status, reply.code) == (503, "worker_lost") and "retry-after" in reply.headers
        until(lambda: server.figure("tenfold_workers") == 1)
        assert server.post("/predict", png()).status == 200


_POISON = """
import sys
if any('serving.worker' in a for a in sys.orig_argv):
    import os, time
    from tenfold.data import decode
    whole = decode.decode

    def poisoned(source, *rest):
        if source == b'crash':
            os._exit(9)
        if source == b'hang':
            time.sleep(1000)
        return whole(source, *rest)

    decode.decode = poisoned
"""


def _poisoned(folder: Path) -> dict[str, str]:
    """An environment in which two bodies make a worker crash or hang."""
    (folder / "sitecustomize.py").write_text(_POISON)
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


def test_a_picture_that_kills_whoever_opens_it_takes_no_other_along(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--deadline", "60")
    with (
        serving(tiny_bundle, *options, folder=tmp_path, **_poisoned(tmp_path)) as server,
        concurrent.futures.ThreadPoolExecutor(40) as threads,
    ):
        first = threads.submit(server.post, "/predict", slow(20))  # what comes meanwhile waits and shares frames
        until(lambda: server.figure("tenfold_queue_bytes") > 0)
        bodies = [b"crash" if i in (5, 6) else png(i) for i in range(24)]
        replies = list(threads.map(lambda body: server.post("/predict", body, None, 60), bodies))
        assert first.result().status == 200
        lost = [(r.status, r.code) for r, body in zip(replies, bodies, strict=True) if body == b"crash"]
        assert lost == [(503, "worker_lost")] * 2
        assert all(r.status == 200 for r, body in zip(replies, bodies, strict=True) if body != b"crash")
        assert server.figure("tenfold_worker_restarts_total") <= 4


def test_a_picture_that_never_ends_holds_its_worker_little_longer_than_its_client(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    options = ("--workers", "1", "--deadline", "1")
    with serving(tiny_bundle, *options, folder=tmp_path, **_poisoned(tmp_path)) as server:
        began = time.monotonic()
        reply = server.post("/predict", b"hang")
        assert (reply.status, reply.code) == (504, "deadline") and time.monotonic() - began < 3
        until(lambda: server.figure("tenfold_worker_restarts_total") == 1)
        until(lambda: server.figure("tenfold_workers") == 1)
        assert time.monotonic() - began < 12
        assert server.post("/predict", png()).status == 200
        assert "has not answered for 6 s" in server.log.read_text()


# ---- models that change ---------------------------------------------------------------------------------------------


def test_a_changed_model_is_taken_up_without_a_lost_request(bundle_content: Any, tmp_path: Path) -> None:
    path = store.write(tmp_path / "run" / "model", bundle_content(seed=1)).path.parent
    with serving(path, "--workers", "2", folder=tmp_path) as server:
        stop = threading.Event()
        found: list[tuple[int, str]] = []

        def ask() -> None:
            while not stop.is_set():
                reply = server.post("/predict", png())
                found.append((reply.status, reply.json["version"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        first = server.models["run"]
        store.write(path / "model", bundle_content(seed=2, classes=4))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.figure("tenfold_reloads_total", outcome="done") == 1)
        until(lambda: found[-1][1] != first)
        stop.set()
        for thread in threads:
            thread.join()
        versions = [version for _, version in found]
        assert {status for status, _ in found} == {200}
        assert versions[0] == first and len(set(versions)) == 2
        [card] = server.get("/models").json["models"]
        assert card["version"] == versions[-1] and len(card["classes"]) == 4
        until(lambda: len(server.workers()) == 2)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(bundle_content: Any, tmp_path: Path) -> None:
    path = store.write(tmp_path / "run" / "model", bundle_content()).path.parent
    with serving(path, "--workers", "1", folder=tmp_path) as server:
        (path / "model" / "model.onnx").write_bytes(b"damaged")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.figure("tenfold_reloads_total", outcome="failed") == 1)
        assert server.post("/predict", png()).json["version"] == server.models["run"]
        assert server.get("/v2/health/ready").status == 200
        until(lambda: "not reloaded" in server.log.read_text())


# ---- more than it can take ------------------------------------------------------------------------------------------


def test_a_full_queue_says_to_come_again_and_waiting_has_an_end(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--queue", "4", "--deadline", "1.5")
    with (
        serving(tiny_bundle, *options, folder=tmp_path) as server,
        concurrent.futures.ThreadPoolExecutor(24) as threads,
    ):
        picture = slow(20)
        replies = list(threads.map(lambda _: server.post("/predict", picture), range(24)))
        by_code = {}
        for reply in replies:
            by_code.setdefault((reply.status, "" if reply.status == 200 else reply.code), []).append(reply)
        assert set(by_code) <= {(200, ""), (503, "queue_full"), (504, "deadline")}, by_code.keys()
        full = by_code[(503, "queue_full")]
        assert len(full) >= 12 and all(r.headers["retry-after"] == "1" for r in full)
        assert server.figure("tenfold_refusals_total", reason="queue_full") == len(full)
        until(lambda: server.post("/predict", png()).status == 200)
        assert server.figure("tenfold_queue_bytes") == 0 and server.figure("tenfold_queue_depth") == 0


def test_the_deadline(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--deadline", "0.3")
    with serving(tiny_bundle, *options, folder=tmp_path) as server:
        began = time.monotonic()
        reply = server.post("/predict", slow(49))
        assert (reply.status, reply.code) == (504, "deadline") and time.monotonic() - began < 3
        assert server.get("/v2/health/ready").status == 200


# ---- the log --------------------------------------------------------------------------------------------------------


def test_the_log_is_json_where_nobody_looks(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "1", folder=tmp_path) as server:
        server.post("/predict", png(), {"X-Request-ID": "known"})
        server.post("/predict", b"x")
        assert server.stop() == 0
        rows = [json.loads(line) for line in server.log.read_text().splitlines()]
    asked = [row for row in rows if "path" in row]
    assert [row["status"] for row in asked] == [200, 422]
    first = asked[0]
    assert (first["method"], first["path"], first["model"]) == ("POST", "/predict", "tiny-run")
    assert first["request_id"] == "known" and {"receive", "wait", "decode", "compute"} == set(first["stages"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert asked[1]["code"] == "bad_picture"
    assert [row["event"] for row in rows if "event" in row] == ["stopping"]


def test_the_log_in_words(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, "--workers", "1", "--log", "text", folder=tmp_path) as server:
        server.post("/predict", png(), {"X-Request-ID": "known"})
        assert server.stop() == 0
        [line, stopping] = server.log.read_text().splitlines()
    assert re.fullmatch(r"\S+Z  200  POST /predict  \d+\.\d ms  tiny-run  known", line)
    assert "stopping" in stopping
