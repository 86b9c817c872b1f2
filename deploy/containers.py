"""How a program is run in an image, with the limits it has in production: by Docker, by Podman, or by sandbox.sh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Mount:
    source: Path
    target: str
    writable: bool = False

    def __str__(self) -> str:
        return f"{self.source.resolve()}:{self.target}:{'rw' if self.writable else 'ro'}"


class Container(ABC):
    """One that is running. ``url`` is where its port 8080 is reached."""

    url: str

    @abstractmethod
    def running(self) -> bool: ...

    @abstractmethod
    def log(self) -> str: ...

    @abstractmethod
    def users(self) -> list[int] | None:
        """The user ids of its processes, None where they can't be told."""

    @abstractmethod
    def inside(self, command: list[str]) -> int:
        """The exit code of a command beside it."""

    @abstractmethod
    def terminate(self, seconds: float) -> int:
        """Sends SIGTERM and gives the exit code."""


class Engine(ABC):
    """An image, and what runs it."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of all its layers, unpacked."""

    @abstractmethod
    def run(self, words: list[str], mounts: list[Mount] | None = None, *, entrypoint: bool = True) -> Done:
        """Run it to its end; ``words`` go to its entry point, or are the whole command."""

    @abstractmethod
    def start(self, words: list[str], mounts: list[Mount]) -> contextlib.AbstractContextManager[Container]: ...


@contextmanager
def engine(name: str, image: str) -> Iterator[Engine]:
    if name != "buildah":
        yield Client(name, image)
        return
    made = _said(["buildah", "from", image])
    try:
        yield Sandbox(image, Path(_said(["buildah", "mount", made])))
    finally:
        subprocess.run(["buildah", "rm", made], stdout=subprocess.DEVNULL, check=False)


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Error: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


# ---- Docker and Podman --------------------------------------------------------------------------------------------

LIMITS = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
LIMITS += ("--memory=2g", "--cpus=2", "--pids-limit=256")


class Client(Engine):
    def __init__(self, program: str, image: str) -> None:
        self.program, self.image = program, image

    def size(self) -> int:
        return int(_said([self.program, "image", "inspect", "--format", "{{.Size}}", self.image]))

    def _call(self, words: list[str], mounts: list[Mount], *options: str) -> list[str]:
        volumes = [word for mount in mounts for word in ("--volume", str(mount))]
        return [self.program, "run", *LIMITS, *volumes, *options, self.image, *words]

    def run(self, words: list[str], mounts: list[Mount] | None = None, *, entrypoint: bool = True) -> Done:
        options = ["--rm", *([] if entrypoint else ["--entrypoint", words[0]])]
        call = self._call(words if entrypoint else words[1:], mounts or [], *options)
        return subprocess.run(call, capture_output=True, text=True)

    @contextmanager
    def start(self, words: list[str], mounts: list[Mount]) -> Iterator[Container]:
        made = _said(self._call(words, mounts, "--detach", "--publish=127.0.0.1::8080"))
        try:
            yield ClientContainer(self.program, made)
        finally:
            subprocess.run([self.program, "rm", "--force", made], stdout=subprocess.DEVNULL, check=False)


class ClientContainer(Container):
    def __init__(self, program: str, name: str) -> None:
        self.program, self.name = program, name
        self.url = f"http://{_said([program, 'port', name, '8080']).splitlines()[0]}"

    def _state(self, field: str) -> str:
        return _said([self.program, "inspect", "--format", f"{{{{.State.{field}}}}}", self.name])

    def running(self) -> bool:
        return self._state("Running") == "true"

    def log(self) -> str:
        done = subprocess.run([self.program, "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def users(self) -> list[int] | None:
        first = int(self._state("Pid"))
        return _users(first) if Path(f"/proc/{first}").exists() else None

    def inside(self, command: list[str]) -> int:
        return subprocess.run([self.program, "exec", self.name, *command]).returncode

    def terminate(self, seconds: float) -> int:
        _said([self.program, "kill", "--signal=TERM", self.name])
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            time.sleep(0.1)
        return -1 if self.running() else int(self._state("ExitCode"))


# ---- without either -----------------------------------------------------------------------------------------------


class Sandbox(Engine):
    """Runs an image's files, mounted by buildah, in namespaces made by unshare: see sandbox.sh."""

    def __init__(self, image: str, root: Path) -> None:
        self.image, self.root = image, root
        said = json.loads(_said(["buildah", "inspect", "--type", "image", image]))
        self.config: dict[str, Any] = said["Docker"]["config"]

    def size(self) -> int:
        number, unit = json.loads(_said(["buildah", "images", "--json", self.image]))[0]["size"].split()
        return round(float(number) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[unit])

    def command(self, words: list[str], mounts: list[Mount], port: int | None, entrypoint: bool) -> list[str]:
        user = self.config.get("User") or "0:0"
        environ = [*self.config["Env"], *([f"AIP_HTTP_PORT={port}"] if port else [])]
        spaces = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        start = [*spaces, "sh", str(HERE / "sandbox.sh"), str(self.root), user, *map(str, mounts), "--"]
        folder = self.config.get("WorkingDir") or "/"
        return [*start, "env", "-i", "-C", folder, *environ, *(self.config["Entrypoint"] if entrypoint else []), *words]

    def run(self, words: list[str], mounts: list[Mount] | None = None, *, entrypoint: bool = True) -> Done:
        call = self.command(words, mounts or [], None, entrypoint)
        return subprocess.run(call, capture_output=True, text=True)

    @contextmanager
    def start(self, words: list[str], mounts: list[Mount]) -> Iterator[Container]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(self.command(words, mounts, port, True), stdout=log, stderr=log)
            try:
                yield SandboxContainer(process, port, log)
            finally:
                process.kill()  # and with it, by --kill-child, all that is in it
                process.wait()


class SandboxContainer(Container):
    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
        self.process, self.port, self._log = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    def running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def _first(self) -> int:
        """The process that is the first one in there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def users(self) -> list[int] | None:
        return _users(self._first())

    def inside(self, command: list[str]) -> int:
        spaces = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--root", "--wd"]
        return subprocess.run([*spaces, "env", f"AIP_HTTP_PORT={self.port}", *command]).returncode

    def terminate(self, seconds: float) -> int:
        os.kill(self._first(), signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -1


def _users(first: int) -> list[int]:
    """The user ids of a process and of all below it."""
    parents: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError):
            status = dict(
                line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
            )
            parents[int(folder.name)] = int(status["PPid"]), int(status["Uid"].split()[0])
    below, found = {first}, [parents[first][1]] if first in parents else []
    while more := {pid for pid, (parent, _) in parents.items() if parent in below and pid not in below}:
        below |= more
        found += [parents[pid][1] for pid in more]
    return found
