"""The images' entry point: which model is served, and a SageMaker job from its settings to its model."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenfold import children, container
from tenfold.container import call, health, serving, training
from tenfold.errors import BundleError, CallError, StoppedError, TrainingError, UnknownNameError

SECONDS = 120


# ---- which model is served ----------------------------------------------------------------------------------------


@pytest.fixture
def ml(bundle_folder: Path, tmp_path: Path) -> Path:
    """/opt/ml with a bundle at model/."""
    root = tmp_path / "ml"
    root.mkdir()
    shutil.copytree(bundle_folder, root / "model")
    return root


END = ["--host", "0.0.0.0", "--port", "8080"]


def test_a_bundle_is_served_from_where_sagemaker_puts_it(ml: Path) -> None:
    assert serving.arguments([], ml, {}) == [f"tiny-run={ml / 'model'}", *END]


def test_a_bundle_that_can_not_be_read_is_left_to_the_server_to_refuse(ml: Path) -> None:
    (ml / "model/manifest.json").write_text("{")
    assert serving.arguments([], ml, {}) == [f"model={ml / 'model'}", *END]


def test_a_run_is_found_before_the_bundle_in_it(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    bundle_folder.parent.rename(tmp_path / "ml/model")
    assert serving.find(tmp_path / "ml/model") == [tmp_path / "ml/model"]


def test_an_archives_own_folders_are_looked_into_and_hidden_ones_are_not(bundle_folder: Path, tmp_path: Path) -> None:
    deep = tmp_path / "ml/model/flowers/1"
    shutil.copytree(bundle_folder, deep)
    shutil.copytree(bundle_folder, tmp_path / "ml/model/.old")
    assert serving.arguments([], tmp_path / "ml", {}) == [f"tiny-run={deep}", *END]


def test_several_models_are_called_by_their_folders(bundle_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ml/model"
    for name in ("b", "a"):
        shutil.copytree(bundle_folder, folder / name)
    assert serving.arguments([], tmp_path / "ml", {})[:2] == [f"a={folder / 'a'}", f"b={folder / 'b'}"]


def test_a_folder_and_a_name_may_be_given_and_options_are_passed_on(ml: Path) -> None:
    model = ml / "model"
    words = serving.arguments([f"flowers={model}", "--workers", "3", "--port=9000"], ml, {})
    assert words == [f"flowers={model}", "--workers", "3", "--port=9000", "--host", "0.0.0.0"]
    assert serving.arguments([str(model)], ml, {})[0] == f"tiny-run={model}"


def test_an_equals_sign_in_a_path_is_no_name(bundle_folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a=b/model"
    shutil.copytree(bundle_folder, odd)
    assert serving.arguments([str(odd)], tmp_path, {})[0] == f"tiny-run={odd}"


@pytest.mark.parametrize("name", ["SAGEMAKER_BIND_TO_PORT", "AIP_HTTP_PORT"])
def test_the_platforms_port_is_taken(ml: Path, name: str) -> None:
    assert serving.arguments([], ml, {name: "7080"})[-1] == "7080"
    for text in ("0", "65536", "http", "-1", "８０"):
        with pytest.raises(CallError, match=name):
            container.port({name: text})


def test_where_there_is_no_model_it_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no folder"):
        serving.arguments([], tmp_path, {})
    (tmp_path / "model").mkdir()
    with pytest.raises(BundleError, match="it is empty"):
        serving.arguments([], tmp_path, {})
    (tmp_path / "model/labels.txt").touch()
    with pytest.raises(BundleError, match=r"it holds labels\.txt"):
        serving.arguments([], tmp_path, {})
    (tmp_path / "model/model.tar.gz").touch()
    with pytest.raises(BundleError, match="not unpacked"):
        serving.arguments([], tmp_path, {})


def test_a_folder_of_thousands_is_not_walked_through(tmp_path: Path) -> None:
    for i in range(serving.MAX_FOLDERS + 1):
        (tmp_path / f"model/{i}").mkdir(parents=True)
    with pytest.raises(BundleError, match="more than 1,000 folders"):
        serving.find(tmp_path / "model")


def test_a_model_that_may_not_be_read_says_who_may_not(ml: Path) -> None:
    nobody = 65534 if os.geteuid() == 0 else os.geteuid()  # root may read everything
    (ml / "model").chmod(0)
    before = os.geteuid()
    os.seteuid(nobody)
    try:
        with pytest.raises(BundleError, match=f"uid {nobody}"):
            serving.find(ml / "model")
    finally:
        os.seteuid(before)
        (ml / "model").chmod(0o755)


def test_vertex_ai_may_name_a_folder_but_not_a_bucket_that_is_not_mounted(ml: Path) -> None:
    assert serving.arguments([], ml / "nothing", {"AIP_STORAGE_URI": str(ml / "model")})[0].endswith(f"={ml / 'model'}")
    assert serving.arguments([], ml, {"AIP_STORAGE_URI": ""})[0].endswith(f"={ml / 'model'}")
    with pytest.raises(CallError, match="gs://bucket/flowers, which is not mounted"):
        serving.arguments([], ml, {"AIP_STORAGE_URI": "gs://bucket/flowers"})


# ---- the health check ---------------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[[int], int]]:
    """(status) → the port of a server that answers every request with it."""
    servers = []

    def start(status: int) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == health.ROUTE else 404)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_health_is_what_the_server_says(answering: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    port = answering(200)
    assert health.ready(port)
    assert not health.ready(answering(503))
    monkeypatch.setenv("AIP_HTTP_PORT", str(port))
    assert _container("health").returncode == 0
    monkeypatch.setenv("AIP_HTTP_PORT", "1")
    assert _container("health").returncode == 1


# ---- what a job asks for ------------------------------------------------------------------------------------------


def _job(root: Path, settings: Any = None, *channels: str, hosts: list[str] | None = None) -> Path:
    """A layout in ``root`` whose channels' folders have two class folders each."""
    (root / "input/config").mkdir(parents=True)
    for channel in channels:
        for name in ("a", "b"):
            (root / "input/data" / channel / name).mkdir(parents=True)
    if settings is not None:
        (root / "input/config/hyperparameters.json").write_text(json.dumps(settings), encoding="utf-8")
    if hosts is not None:
        resources = {"current_host": hosts[0], "hosts": hosts}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(resources), encoding="utf-8")
    return root


def test_hyperparameters_are_options_and_fields(tmp_path: Path) -> None:
    settings = {
        "epochs": "3",
        "time_limit": "10m",
        "batch-size": 64,
        "recipe": '"quick"',
        "optimizer.lr": "0.1",
        "low_res": None,
        "compile": True,
        "sagemaker_job_name": "job-1",
        "_tuning_objective_metric": "val",
    }
    words = call.words(_job(tmp_path, settings, "training", hosts=["algo-1"]))
    assert words == [
        "--batch-size=64",
        "--epochs=3",
        "--recipe=quick",
        "--time-limit=10m",
        "--set=compile=true",
        "--set=low_res=null",
        "--set=optimizer.lr=0.1",
        "--",
        str(tmp_path / "input/data/training"),
    ]


def test_an_unknown_hyperparameter_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean epochs"):
        call.words(_job(tmp_path, {"epoch": "3"}, "training"))


def test_two_spellings_of_an_option_must_agree(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="given twice"):
        call.words(_job(tmp_path, {"batch_size": "3", "batch-size": "4"}, "training"))


def test_several_hosts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="has 2 hosts"):
        call.words(_job(tmp_path, {}, "training", hosts=["algo-1", "algo-2"]))


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"a": ' + "[" * 100_000, " " * (call.MAX_SETTINGS_BYTES + 1)])
def test_settings_that_are_no_object_are_told(tmp_path: Path, text: str) -> None:
    _job(tmp_path, None, "training")
    (tmp_path / "input/config/hyperparameters.json").write_text(text, encoding="utf-8")
    with pytest.raises(CallError, match=r"hyperparameters\.json"):
        call.words(tmp_path)


@pytest.mark.parametrize(
    ("channels", "data"),
    [
        (["training"], "training"),
        (["pictures"], "pictures"),
        (["test", "train", "validation"], ""),
        (["other", "train"], ""),
    ],
)
def test_the_channels_are_the_dataset(tmp_path: Path, channels: list[str], data: str) -> None:
    assert call.words(_job(tmp_path, None, *channels))[-1] == str(tmp_path / "input/data" / data)


def test_channels_that_no_split_is_called_by_are_a_question(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="There are cats, dogs"):
        call.words(_job(tmp_path, None, "cats", "dogs"))
    with pytest.raises(CallError, match="holds no channel"):
        call.words(_job(tmp_path / "empty"))


def test_data_and_recipe_may_lie_in_channels(tmp_path: Path) -> None:
    _job(tmp_path, {"data": "training/labels.csv", "recipe": "settings/own.yaml"}, "training", "settings")
    data = tmp_path / "input/data"
    (data / "training/labels.csv").touch()
    (data / "settings/own.yaml").touch()
    assert call.words(tmp_path) == [f"--recipe={data}/settings/own.yaml", "--", f"{data}/training/labels.csv"]
    shutil.rmtree(tmp_path)
    _job(tmp_path, {"recipe": "settings/own.yaml"}, "training", "settings")
    (data / "settings/own.yaml").touch()
    assert call.words(tmp_path)[-1] == f"{data}/training"
    shutil.rmtree(tmp_path)
    assert call.words(_job(tmp_path, {"data": "digits"}))[-1] == "digits"


def test_a_table_in_a_channel_is_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "input/data/training/pictures").mkdir(parents=True)
    (tmp_path / "input/data/training/labels.csv").touch()
    assert call.words(tmp_path)[-1] == str(tmp_path / "input/data/training/labels.csv")


# ---- the real thing -----------------------------------------------------------------------------------------------


def _start(root: Path | None, *words: str, **environ: str) -> subprocess.Popen[str]:
    settings = {**children.environment(), **({"TENFOLD_OPT_ML": str(root)} if root else {}), **environ}
    return subprocess.Popen(
        [*children.command("tenfold.container"), *words],
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _container(*words: str, root: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    with _start(root, *words, **environ) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _digits(folder: Path, names: dict[str, str]) -> None:
    """Twenty pictures of each digit as PNG files; of those ``names`` says how many parts go to which channel."""
    from PIL import Image

    from tenfold.data import builtin

    pixels, labels = builtin.digits()
    taken: dict[int, int] = {}
    for image, label in zip(pixels, labels.tolist(), strict=True):
        place = taken[label] = taken.get(label, -1) + 1
        if place < 20:
            channel = names["val" if place < 3 else "test" if place < 6 else "train"]
            path = folder / channel / str(label) / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


CHANNELS = {"train": "train", "val": "validation", "test": "test"}
SHORT = {"recipe": "quick", "epochs": "1", "device": "cpu"}


def test_a_job_leaves_its_model_and_report(tmp_path: Path) -> None:
    import tenfold

    root = _job(tmp_path / "ml", SHORT)
    _digits(root / "input/data", CHANNELS)
    done = _container("train", root=root, TRAINING_JOB_NAME="digits.7")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["test"]["n"] == 30
    assert not (root / "output/failure").exists()
    assert {p.name for p in (root / "model").iterdir()} == {"model", *training.MODEL_FILES}
    assert {p.name for p in (root / "output/data").iterdir()} == {"plots", *training.MODEL_FILES}
    assert (root / "output/data/plots/confusion.png").is_file()
    assert serving.find(root / "model") == [root / "model"]
    model = tenfold.load(root / "model")
    assert model.name == "digits-7"
    assert model.classes == tuple("0123456789")
    assert not (root / "checkpoints").exists()

    picture = root / "input/data/test/7/3.png"
    asked = _container("predict", str(root / "model"), str(picture), "--json")
    assert json.loads(asked.stdout)["predictions"][0]["top"][0]["class"] == model.predict(picture).label


def test_serve_answers_for_the_mounted_model_and_ends_by_sigterm(ml: Path, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="tenfold[serve] is not installed")
    from PIL import Image

    import tenfold

    picture = tmp_path / "picture.png"
    Image.effect_noise((20, 30), 90).save(picture)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _start(ml, "serve", "--workers", "1", AIP_HTTP_PORT=str(port)) as process:
        until = time.monotonic() + SECONDS
        while not health.ready(port):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", picture.read_bytes())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            said = json.loads(answer.read())
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert said["model"] == "tiny-run"
    expected = tenfold.load(ml / "model").predict(picture)
    assert [entry["class"] for entry in said["predictions"][0]["top"]] == [name for name, _ in expected.top]
    assert said["predictions"][0]["top"][0]["probability"] == pytest.approx(expected.probability, abs=1e-5)


def test_serve_without_a_model_ends_at_once(tmp_path: Path) -> None:
    done = _container("serve", root=tmp_path)
    assert done.returncode == 1
    assert "There is no model" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_goes_wrong_is_the_jobs_failure(tmp_path: Path) -> None:
    root = _job(tmp_path / "ml", SHORT)
    (root / "input/data/training/a").mkdir(parents=True)
    done = _container("train", root=root)
    reason = (root / "output/failure").read_text(encoding="utf-8")
    assert done.returncode == 1
    assert "training" in reason
    assert "class" in reason
    assert done.stderr.count("Error:") == 1, done.stderr

    settings = root / "input/config/hyperparameters.json"
    settings.write_text('{"optimizer.lr": "fast"}', encoding="utf-8")
    done = _container("train", root=root)
    assert done.returncode == 2
    assert "optimizer.lr" in (root / "output/failure").read_text(encoding="utf-8")
    assert done.stderr.count("Error:") == 1, done.stderr


@pytest.mark.slow
def test_a_stopped_job_goes_on_and_comes_to_what_it_would_have(tmp_path: Path) -> None:
    root = _job(tmp_path / "ml", {**SHORT, "epochs": "10"})
    _digits(root / "input/data", CHANNELS)
    (root / "checkpoints").mkdir()
    folder = root / "checkpoints/job-1"
    environ = {"TRAINING_JOB_NAME": "job-1"}
    with _start(root, "train", **environ) as process:
        until = time.monotonic() + SECONDS
        while not (folder / "checkpoint/last.safetensors").exists() and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, (out, err)
    assert "checkpoint is kept" in (root / "output/failure").read_text(encoding="utf-8")
    assert not (root / "model/model").exists()

    done = _container("train", root=root, **environ)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    assert not (root / "output/failure").exists()
    resumed = (root / "model/model/weights.safetensors").read_bytes()

    again = _container("train", root=root, **environ)
    assert again.returncode == 0
    assert "is finished already" in again.stderr

    other = root / "input/config/hyperparameters.json"
    other.write_text(json.dumps({**SHORT, "epochs": "2"}), encoding="utf-8")
    refused = _container("train", root=root, **environ)
    assert refused.returncode == 2
    assert "another job" in (root / "output/failure").read_text(encoding="utf-8")

    other.write_text(json.dumps({**SHORT, "epochs": "10"}), encoding="utf-8")
    shutil.rmtree(root / "checkpoints")
    (root / "checkpoints").mkdir()
    assert _container("train", root=root, **environ).returncode == 0
    assert (root / "model/model/weights.safetensors").read_bytes() == resumed


def test_a_run_that_was_cut_before_its_record_stood_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").touch()
    assert training._status(folder) is None
    assert not folder.exists()


def _child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(children, "command", lambda module: [sys.executable, "-c", code])


def test_a_training_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = _job(tmp_path, {"data": "digits"})
    _child(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert training.train(root) == 1
    assert "memory ran out" in (root / "output/failure").read_text(encoding="utf-8")
    _child(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(TrainingError, match="SIGSEGV"):
        training._tenfold([], True)
    _child(monkeypatch, "print('no JSON'); exit(7)")
    with pytest.raises(TrainingError, match="exit code 7") as caught:
        training._tenfold([], True)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_signal_is_passed_on(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    _child(monkeypatch, "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)")
    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    with pytest.raises(StoppedError, match="checkpoint is kept" if kept else "checkpoint is lost"):
        training._tenfold([], kept)
    assert time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write everywhere")
def test_a_place_that_can_not_be_written_is_told_before_training(tmp_path: Path) -> None:
    root = _job(tmp_path, {"data": "digits"})
    (root / "model").mkdir(mode=0o555)
    assert training.train(root) == 2
    assert "model can't be written" in (root / "output/failure").read_text(encoding="utf-8")


def test_a_bug_is_a_failure_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def break_down(root: Path) -> list[str]:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(call, "words", break_down)
    assert training.train(tmp_path) == 1
    assert (tmp_path / "output/failure").read_text(encoding="utf-8") == "ZeroDivisionError: by nought"
    assert "Traceback" in capsys.readouterr().err


def test_a_training_with_words_is_the_command(tmp_path: Path) -> None:
    done = _container("train", "digits", "--epochs", "-1", root=tmp_path)
    assert done.returncode == 2
    assert "--epochs" in done.stderr
    assert not (tmp_path / "output").exists()
