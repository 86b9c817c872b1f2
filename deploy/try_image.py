"""Is an image what docs/deploy.md says? Its server is started as it would be in production and asked; see --help.

    size        below a bound
    content     no framework, compiler, package manager's cache or registry's configuration
    user        not root, no capabilities, no new privileges; the root filesystem can't be written
    answers     those of `tenfold predict` in the same image, to 1e-5
    end         SIGTERM ends it with exit code 0

and of the image that trains: a job laid out as SageMaker does is stopped, goes on, and its model is served.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from containers import Container, Engine, Mount, engine

MAX_MB = {"serve": 400, "train": 12_000}
TOLERANCE = 1e-5
MODEL = "/opt/ml/model"
PICTURES = "/tmp/pictures"
READY_SECONDS, END_SECONDS = 60.0, 30.0
PYTHON = "/opt/tenfold/bin/python"

# Run inside the image, by its user, under its limits.
PROBE = """
import errno, glob, importlib.util, json, os, shutil
def write(folder):
    try:
        with open(os.path.join(folder, ".probe"), "w"):
            pass
        os.remove(os.path.join(folder, ".probe"))
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(),
    "capabilities": int(status["CapEff"], 16), "no_new_privileges": int(status["NoNewPrivs"]),
    "writes": {folder: write(folder) for folder in ("/", "/etc", "/opt/tenfold", "/var", "/root", "/tmp")},
    "packages": [name for name in ("torch", "tensorflow", "jax", "keras", "tinygrad", "matplotlib", "onnx", "pip",
                                   "setuptools", "pytest") if importlib.util.find_spec(name)],
    "programs": [name for name in ("cc", "gcc", "g++", "clang", "make", "ld", "as", "git", "curl", "wget")
                 if shutil.which(name)],
    "leftovers": [path for pattern in ("/root/.cache", "/root/.config", "/var/lib/apt/lists/*_*", "/etc/pip.conf",
                  "/etc/xdg/pip", "/run/secrets/*", "/var/cache/apt/*.bin", "/var/cache/apt/archives/*.deb", "/src",
                  "/tmp/install*", "/var/log/*.log") for path in glob.glob(pattern)],
}))
"""


FILES = "import os, sys; sys.exit(min(99, sum(len(files) for _, _, files in os.walk('/tmp'))))"


class Failed(Exception):
    """A check that did not hold."""


def hold(what: str, holds: bool, otherwise: object = "") -> None:
    if not holds:
        raise Failed(f"{what}: {otherwise}" if otherwise != "" else what)
    print(f"  ok  {what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--with", dest="engine", required=True, choices=("docker", "podman", "buildah"))
    parser.add_argument("--target", default="serve", choices=("serve", "train"))
    parser.add_argument("--run", type=Path, help="a run folder (default: digits, trained for it)")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures (default: digits)")
    parser.add_argument("--max-mb", type=float, help=f"the largest that the image may be (default: {MAX_MB})")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, engine(call.engine, call.image) as image:
        work = Path(scratch)
        try:
            _size(image, call.max_mb or MAX_MB[call.target])
            pictures = call.pictures or _digits(work / "pictures")
            if call.target == "serve":
                _content(image)
                _serves(image, call.run or _train(work / "run"), pictures)
            else:  # whose user is root, as SageMaker's folders are root's
                _serves(image, _trains(image, work / "ml"), pictures, as_root=True)
        except Failed as failure:
            print(f"  NO  {failure}", file=sys.stderr)
            return 1
    return 0


def _size(image: Engine, most: float) -> None:
    size = image.size() / 1e6
    hold(f"the image has {size:.0f} MB; at most {most:.0f} are allowed", size < most)


def _content(image: Engine) -> None:
    done = image.run([PYTHON, "-c", PROBE], entrypoint=False)
    hold("Python runs in it", done.returncode == 0, done.stderr)
    found = json.loads(done.stdout)
    hold(f"its user is {found['uid']}, not root", found["uid"] != 0 and 0 not in found["groups"], found)
    hold(
        "it has no capabilities and can't get new privileges", not found["capabilities"] and found["no_new_privileges"]
    )
    writes = dict(found["writes"])
    hold("/tmp can be written", writes.pop("/tmp") == "written")
    hold(f"nothing else can: {', '.join(writes)}", all(w in ("EROFS", "EACCES") for w in writes.values()), writes)
    hold("the root filesystem is read-only", writes["/opt/tenfold"] == "EROFS", writes)
    hold("no framework and no pip is in it", not found["packages"], found["packages"])
    hold("no compiler and no downloader is in it", not found["programs"], found["programs"])
    hold("no cache and no registry's configuration is in it", not found["leftovers"], found["leftovers"])


# ---- serve --------------------------------------------------------------------------------------------------------


def _serves(image: Engine, run: Path, pictures: Path, as_root: bool = False) -> None:
    mounts = [Mount(run, MODEL)]
    empty = image.run(["serve"])
    hold("without a model it says so", empty.returncode == 1 and "no model" in empty.stderr, empty.stderr)
    with image.start(["serve"], mounts) as server:
        hold(f"it is ready after {_ready(server):.1f} s", True)
        health = server.inside([PYTHON, "-P", "-m", "tenfold.container", "health"])
        hold("its health check says so", health == 0, f"exit code {health}")
        if not as_root and (users := server.users()) is not None:
            hold(f"its {len(users)} processes are not root's", len(users) > 0 and 0 not in users, users)
        _answers(image, server, mounts, pictures)
        written = server.inside([PYTHON, "-c", FILES])
        hold("it has written nothing, not in /tmp either", written == 0, f"{written} files")
        metrics = _get(f"{server.url}/metrics").decode()
        hold("it counts them", "tenfold_requests_total" in metrics)
        begun = time.monotonic()
        code = server.terminate(END_SECONDS)
        hold(f"SIGTERM ends it after {time.monotonic() - begun:.1f} s with exit code 0", code == 0, server.log())


def _ready(server: Container) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < READY_SECONDS:
        with contextlib.suppress(OSError):
            _get(f"{server.url}/v2/health/ready")
            return time.monotonic() - begun
        if not server.running():
            break
        time.sleep(0.05)
    raise Failed(f"the server does not become ready:\n{server.log()}")


def _answers(image: Engine, server: Container, mounts: list[Mount], pictures: Path) -> None:
    """Each picture's probabilities over HTTP are those of the command line."""
    words = ["predict", MODEL, PICTURES, "--top", "1000", "--json"]
    done = image.run(words, [*mounts, Mount(pictures, PICTURES)])
    hold("tenfold predict runs in the image", done.returncode == 0, done.stderr)
    expected = {Path(p["path"]).name: _by_class(p["top"]) for p in json.loads(done.stdout)["predictions"]}
    furthest, begun = 0.0, time.monotonic()
    for name, probabilities in expected.items():
        picture = next(pictures.rglob(name))
        said = json.loads(_get(f"{server.url}/predict?top={len(probabilities)}", picture.read_bytes()))
        answer = _by_class(said["predictions"][0]["top"])
        if answer.keys() != probabilities.keys():
            raise Failed(f"{name}: {said} is not {probabilities}")
        furthest = max([furthest, *(abs(answer[c] - probabilities[c]) for c in probabilities)])
    seconds = time.monotonic() - begun
    hold(
        f"{len(expected)} pictures are answered in {seconds:.1f} s, one after another, "
        f"at most {furthest:.1e} from tenfold predict",
        len(expected) > 0 and furthest <= TOLERANCE,
    )


def _by_class(top: list[dict[str, Any]]) -> dict[str, float]:
    return {entry["class"]: entry["probability"] for entry in top}


def _get(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream"} if body else {})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return bytes(answer.read())


# ---- train --------------------------------------------------------------------------------------------------------


def _trains(image: Engine, layout: Path) -> Path:
    """A training job, stopped after its first checkpoint and started again; gives the folder of its model."""
    settings = {"recipe": "quick", "epochs": "12", "device": "cpu", "optimizer.lr": "0.002"}
    for folder in ("input/config", "input/data", "checkpoints", "model", "output"):
        (layout / folder).mkdir(parents=True)
    (layout / "input/config/hyperparameters.json").write_text(json.dumps(settings), encoding="utf-8")
    _digits(layout / "input/data/training", by_class=True)
    mounts = [Mount(layout, "/opt/ml", writable=True)]
    with image.start(["train"], mounts) as job:
        _until(job, lambda: any(layout.glob("checkpoints/*/checkpoint/last.safetensors")))
        code = job.terminate(END_SECONDS)
        hold("SIGTERM ends a training with exit code 130", code == 130, f"{code}\n{job.log()}")
    reason = (layout / "output/failure").read_text(encoding="utf-8")
    hold("it leaves a checkpoint and says so", "checkpoint is kept" in reason, reason)
    done = image.run(["train"], mounts)
    hold("the same job goes on from there", done.returncode == 0 and "resumed at step" in done.stderr, done.stderr)
    hold("its model and report are handed over", (layout / "model/model/model.onnx").is_file())
    return layout / "model"


def _until(job: Container, happens: Any, seconds: float = 180.0) -> None:
    begun = time.monotonic()
    while not happens():
        if not job.running() or time.monotonic() - begun > seconds:
            raise Failed(f"the training did not get to a checkpoint:\n{job.log()}")
        time.sleep(0.1)


# ---- a model and pictures to try with -----------------------------------------------------------------------------


def _digits(folder: Path, by_class: bool = False) -> Path:
    """tenfold's digits as PNG files: a few of each class, or all of them in folders of their classes."""
    for path, pixels in _named_digits(by_class):
        from PIL import Image

        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path)
    return folder


def _named_digits(by_class: bool) -> Iterator[tuple[str, Any]]:
    try:
        from tenfold.data import builtin
    except ImportError:
        sys.exit("Error: tenfold is not installed here.\nRun make install, or name --run and --pictures.")
    pixels, labels = builtin.digits()
    for i in range(len(labels)) if by_class else range(0, len(labels), 40):
        yield (f"{labels[i]}/{i}.png" if by_class else f"{labels[i]}-{i}.png"), pixels[i]


def _train(folder: Path) -> Path:
    words = ["train", "digits", "--device", "cpu", "--epochs", "4", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "tenfold", *words], check=True, capture_output=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
