"""What a server's processes use, and that none of them stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import watching
from watching import Running, ServerError

needs_proc = pytest.mark.skipif(not watching.PROC.is_dir(), reason="reads /proc")

# A worker in a session of its own, as BentoML's are; the leader ends at once when it is asked to.
LEADER = """
import subprocess, sys, time
worker = "x = bytearray(60_000_000)\\nfor i in range(0, len(x), 4096): x[i] = 1\\nprint('up', flush=True)\\n"
worker += "import time\\nt = time.time()\\nwhile time.time() < t + 0.4: pass\\ntime.sleep(600)"
subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@needs_proc
def test_the_tree_is_measured_and_ended_whole(tmp_path: Path) -> None:
    with Running([sys.executable, "-c", LEADER], cwd=tmp_path, log=tmp_path / "log") as running:
        took = running.wait(lambda: "up" in (tmp_path / "log").read_text(), 20)
        assert 0 < took < 20
        pids = watching.tree(running.process.pid)
        assert len(pids) == 2 and os.getsid(pids[1]) != os.getsid(pids[0])
        used = running.watch(lambda: time.sleep(0.6))
        assert used.seconds >= 0.6 and used.cpu_seconds is not None and used.cpu_seconds > 0.1
        assert used.resident_bytes is not None and used.resident_bytes > 60e6
        assert used.proportional_bytes is not None and 60e6 < used.proportional_bytes <= used.resident_bytes
        code, _ = running.end()
        assert code == -15
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


@needs_proc
def test_a_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    running = Running([sys.executable, "-c", stubborn], cwd=tmp_path, log=tmp_path / "log")
    running.wait(lambda: "up" in (tmp_path / "log").read_text(), 20)
    code, took = running.end(grace=0.3)
    assert code == -9 and took >= 0.3


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with Running(fails, cwd=tmp_path, log=tmp_path / "log") as running, pytest.raises(
        ServerError, match="exit code 1; no such model"
    ):  # fmt: skip
        running.wait(lambda: False, 20)
    with pytest.raises(ServerError):
        Running([str(tmp_path / "none")], cwd=tmp_path, log=tmp_path / "log")


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Running(sleeps, cwd=tmp_path, log=tmp_path / "log") as running, pytest.raises(
        ServerError, match="did not answer within"
    ):  # fmt: skip
        running.wait(lambda: False, 0.2)


# ---- the peers' network --------------------------------------------------------------------------------------------

ASK = """
import json, sys
import network, numpy, torch
images = numpy.load(sys.argv[1])
pictures = [network.Image.fromarray(image) for image in images]
batch = torch.stack([network.to_tensor(picture) for picture in pictures])
print(json.dumps(network.probabilities(batch).tolist()))
print(json.dumps(network.answer(network.probabilities(batch[:1])[0])))
"""


def test_the_peers_network_is_the_bundle_s(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import servers
    from safetensors.numpy import save_file

    from tenfold.architecture import weights as canonical
    from tenfold.architecture import zoo
    from tenfold.engines.torch import build
    from tenfold.recipe import Model

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    architecture = zoo.build(Model(name="sprint", widths=(8, 16, 12)), 32, 32, 4)
    weights = canonical.initial(architecture, 0, images)
    for name, values in weights.items():
        if name.endswith((".beta", ".mean")):
            weights[name] = (values + rng.normal(0, 0.1, values.shape)).astype(np.float32)
    net = build.build(architecture).eval()
    build.load_weights(net, architecture, weights)
    with torch.inference_mode():
        logits = net(torch.from_numpy(images)).numpy()
    save_file(weights, tmp_path / "weights.safetensors")
    manifest = {"classes": list("abcd"), "geometry": {"width": 32, "height": 32}, "temperature": 0.5,
                "architecture": architecture.to_dict()}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    np.save(tmp_path / "images.npy", images)
    env = {**os.environ, "MODEL": str(tmp_path), "PYTHONPATH": str(servers.PEERS)}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path / "images.npy")], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told, answer = (json.loads(line) for line in done.stdout.splitlines())
    expected = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum(1, keepdims=True)
    assert np.abs(np.array(told) - expected).max() < 1e-5
    assert answer["class"] == "abcd"[int(expected[0].argmax())] and len(answer["top"]) == 3
