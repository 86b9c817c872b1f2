"""``tenfold serve`` beside its peers: the same machine, network and pictures, in one run, the servers in turn.

    python benchmarks/serving/serve_race.py            # a quarter of an hour; goes on where it was stopped
    python benchmarks/serving/serve_race.py --quick    # one round of short loads, two minutes
    python benchmarks/serving/serve_race.py tenfold gunicorn --rounds 1

Each server is started, asked until it answers, checked (it must give the network's own probabilities), warmed up, and
loaded in a closed loop at several numbers of connections and in an open loop at rising rates until it no longer keeps
up. See benchmarks/serving/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import asking
import latency
import machine
import measuring
import photos
import serve_tables
import serve_tally
import wire
from servers import HERE, PEERS, ROOT, SERVERS, Server, Settings
from watching import Running, ServerError

from tenfold import hardware, processes

PICTURES = 200
CONNECTIONS, RATES, SECONDS, ROUNDS = (1, 8, 32, 64), (100, 200, 300, 400, 600, 800, 1000, 1200), (2.0, 3.0), 3
QUICK_CONNECTIONS, QUICK_RATES, QUICK_SECONDS = (1, 32), (100, 400), (1.0, 1.0)
WARM_UP = ("--connections", "8", "--seconds", "1")
LONGEST_START = 120.0
AGREEMENT = 1e-3  # how far a probability may be off for a picture that needs no resize
RESULTS = ROOT / "benchmarks" / "results"

Record = dict[str, Any]


class RaceError(Exception):
    """The race can't be run as asked for."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # servers are ended, what was measured stays


# ---- what is served and asked --------------------------------------------------------------------------------------


def train(settings: Settings) -> None:
    """The network ``quick`` on CIFAR-10, where it is not there yet."""
    if settings.model().joinpath("manifest.json").exists():
        return
    say("training quick on CIFAR-10 for it (not counted)")
    command = ["-m", "tenfold", "train", "cifar10", "--recipe", "quick", "--device", "cpu", "--out", str(settings.run)]
    done = subprocess.run([settings.python("tenfold"), *command], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise RaceError("The network could not be trained; --run names a run folder that has one.")


class Questions:
    """The photos, the PNGs of the bundle's golden images, and what the bundle itself says of both, asked in this
    process without a server."""

    def __init__(self, settings: Settings) -> None:
        import tenfold
        from tenfold.bundle import store

        bundle = store.open(settings.run)
        images, self.expected = bundle.golden()
        self.pngs = [asking.png(image) for image in images]
        self.classes = bundle.manifest.classes
        self.folder = settings.scratch / "photos"
        self.about = photos.make(self.folder, PICTURES)
        self.photos = wire.pictures(self.folder)
        model = tenfold.load(settings.run)
        self.offline = [model.predict(data).label for _, data in self.photos]


# ---- one server, one round -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def load(url: str, folder: Path, *options: str) -> dict[str, Any]:
    """One load, by the generator as a process of its own."""
    command = [sys.executable, str(HERE / "load.py"), url, str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise ServerError(f"the load generator failed: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(running: Running, url: str, folder: Path, *options: str) -> dict[str, Any]:
    """A load, and what the server and others used meanwhile."""
    found: dict[str, Any] = {}
    before, children = processes.ticks(), _children()
    used = running.watch(lambda: found.update(load(url, folder, *options)))
    after = processes.ticks()
    running.require()
    found["server"] = asdict(used)
    if before is not None and after is not None and used.cpu_seconds is not None:
        spent = after - before
        mine = used.cpu_seconds + _children() - children  # the generator, its start too
        found["others_cores"] = max(0.0, (spent.busy / os.sysconf("SC_CLK_TCK") - mine) / used.seconds)
        found["steal_share"] = spent.steal / max(spent.total, 1)
    return found


def _children() -> float:
    """Processor time of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def all_loads(running: Running, server: Server, port: int, questions: Questions, expect: Path, round_: int,
              plan: dict[str, Any]) -> list[dict[str, Any]]:  # fmt: skip
    url, folder = f"http://127.0.0.1:{port}{server.path}", questions.folder
    fixed = ("--body", server.body, "--expect", str(expect))
    load(url, folder, *fixed, *WARM_UP)
    closed, opened = plan["seconds"]
    found = [
        measured(running, url, folder, *fixed, "--connections", str(n), "--seconds", str(closed))
        for n in plan["connections"]
    ]
    for rate in plan["rates"]:
        more = ("--rate", str(rate), "--seconds", str(opened), "--seed", str(round_))
        found.append(measured(running, url, folder, *fixed, *more))
        if not latency.kept_up(found[-1]):
            break
    return found


def serve_once(server: Server, round_: int, settings: Settings, questions: Questions, plan: dict[str, Any]) -> Record:
    """One round of a server as a record; a failure is one too."""
    port = free_port()
    command = server.command(settings, port)
    logs = settings.scratch / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    record: Record = {"server": server.name, "round": round_, "date": machine.now(), "why": None, "loads": []}
    record["command"] = _plain(server, command, settings, port)
    try:
        with Running(command, cwd=PEERS, env=server.env(settings), log=logs / f"{server.name}.log") as running:
            name, first = questions.photos[0]
            request = wire.request(f"127.0.0.1:{port}", server.path, first, name, server.body)
            record["ready_seconds"] = running.wait(lambda: asking.answers(port, request), LONGEST_START)
            ask = asking.asker(port, server.path, server.body)
            off = asking.furthest(ask, questions.pngs, questions.expected, questions.classes)
            if off > AGREEMENT:
                raise ServerError(f"it gives other probabilities: {off:.4f} off")
            told = {name: ask(name, data) for name, data in questions.photos}
            same = sum(top[0]["class"] == label for top, label in zip(told.values(), questions.offline, strict=True))
            record["agreement"] = {"furthest": off, "photos": len(told), "same_class": same}
            expect = settings.scratch / f"{server.name}-expected.json"
            asking.write_expected(expect, told)
            record["loads"] = all_loads(running, server, port, questions, expect, round_, plan)
            record["exit_code"], record["stop_seconds"] = running.end()
    except (ServerError, asking.AnswerError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        record["why"] = str(error)
    return record


def _plain(server: Server, command: Sequence[str], settings: Settings, port: int) -> str:
    """The command as a reader would type it."""
    words = [*(f"{name}={value}" for name, value in server.environ.items()), Path(command[0]).name, *command[1:]]
    line = " ".join("RUN" if word == str(settings.run) else word for word in words)
    return line.replace(str(port), "PORT").replace("python -m tenfold", "tenfold")


# ---- the race ------------------------------------------------------------------------------------------------------


def missing(server: Server, settings: Settings) -> str | None:
    """Why a server can't take part."""
    python = settings.python(server.environment)
    if not Path(python).exists():
        return f"its environment is not there; --python {server.environment}=PATH names another"
    command = [python, "-c", f"import {server.packages[0]}"]
    if server.environment == "tenfold":
        command = [python, "-m", "tenfold", "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=server.env(settings))
    lines = (done.stderr or done.stdout).strip().splitlines()
    return None if done.returncode == 0 else (lines[-1][:300] if lines else f"exit code {done.returncode}")


def versions(server: Server, settings: Settings) -> dict[str, str]:
    """The versions of a server's packages, as its own Python tells them."""
    lines = (
        "import importlib.metadata as m, json, platform, sys",
        "found = {'python': platform.python_version()}",
        "for name in sys.argv[1:]:",
        "    try: found[name] = m.version(name)",
        "    except m.PackageNotFoundError: pass",
        "print(json.dumps(found))",
    )
    command = [settings.python(server.environment), "-c", "\n".join(lines), *server.packages]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def generator(settings: Settings, questions: Questions) -> dict[str, Any]:
    """What the load generator reaches by itself: against a server that does nothing with what it gets."""
    port = free_port()
    command = [sys.executable, str(HERE / "trivial.py"), str(port)]
    with Running(command, cwd=HERE, log=settings.scratch / "logs" / "trivial.log") as running:
        running.wait(lambda: asking.answers(port, wire.request("localhost", "/", b"x", "x")), 20)
        return load(f"http://127.0.0.1:{port}/", questions.folder, "--connections", "32", "--seconds", "2")


def stored(path: Path, plan: dict[str, Any]) -> list[Record]:
    """The records of this race so far. Raises RaceError where they are of another."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut short
    here = machine.describe()
    for record in records:
        if record["plan"] != plan or not machine.same(record["machine"], here):
            raise RaceError(f"{path} is of another race or machine; --out names another file, --fresh starts over.")
    return records


def race(args: argparse.Namespace, argv: Sequence[str]) -> int:
    known = {server.name: server for server in SERVERS}
    if unknown := set(args.servers) - set(known):
        raise RaceError(f"There is no server {', '.join(sorted(unknown))}. Known: {', '.join(known)}.")
    chosen = [known[name] for name in known if not args.servers or name in args.servers]
    scratch = args.scratch.expanduser().resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "logs").mkdir(exist_ok=True)
    pythons = dict(text.split("=", 1) for text in args.python)
    settings = Settings((args.run or scratch / "quick").resolve(), scratch, hardware.cores(), pythons)
    plan = {"connections": list(CONNECTIONS), "rates": list(RATES), "seconds": list(SECONDS)}
    if args.quick:
        plan = {"connections": list(QUICK_CONNECTIONS), "rates": list(QUICK_RATES), "seconds": list(QUICK_SECONDS)}
    args.out = args.out or (scratch / "quick.json" if args.quick else RESULTS / "serving.json")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    runs = args.out.with_name(args.out.stem + ".runs.jsonl")
    if args.fresh or args.quick:
        runs.unlink(missing_ok=True)
    records = stored(runs, plan)
    train(settings)
    questions = Questions(settings)
    absent = {server.name: why for server in chosen if (why := missing(server, settings))}
    for name, why in absent.items():
        say(f"{name} is left out: {why}")
    racing = [server for server in chosen if server.name not in absent]
    if not racing:
        raise RaceError("Nobody is left to race.")
    own = generator(settings, questions)
    told = {server.name: versions(server, settings) for server in racing}
    stopped = False
    try:
        run_all(racing, records, runs, settings, questions, plan, args)
    except KeyboardInterrupt:
        stopped = True
        say("stopped; what was measured is kept, and the same command goes on")
    summary = {
        "what": "pictures over HTTP",
        "machine": machine.describe(),
        "date": machine.now(),
        "commit": sorted({r["commit"] for r in records if r["commit"]}),
        "command": _plain_call(argv),
        "idle_machine": not any((r["busy_before"] or 0) >= args.idle for r in records),
        "pictures": questions.about,
        "network": {"name": "quick", "classes": len(questions.classes), "run": settings.run.name},
        "plan": plan,
        "generator": own,
        "left_out": absent,
        "servers": [serve_tally.summarise(server, records, told[server.name]) for server in racing],
        "runs": [{k: v for k, v in r.items() if k not in ("machine", "plan")} for r in records],
    }
    partial = args.out.with_name(args.out.name + ".part")
    partial.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(args.out)
    print(serve_tables.full(summary))
    say(f"summary: {args.out}")
    return 130 if stopped else 0


def run_all(racing: Sequence[Server], records: list[Record], path: Path, settings: Settings, questions: Questions,
            plan: dict[str, Any], args: argparse.Namespace) -> None:  # fmt: skip
    """The rounds that are not stored yet; each is appended to ``records`` and to the file as it ends."""
    done = {(r["server"], r["round"]) for r in records if not r["why"]}
    here, commit, began = machine.describe(), machine.commit(), time.perf_counter()
    rounds = 1 if args.quick else args.rounds
    for round_ in range(rounds):
        for server in racing:
            if (server.name, round_) in done:
                say(f"round {round_ + 1} of {rounds}, {server.name}: stored already")
                continue
            waited, busy = 0.0, processes.busy_share(0.2)
            if not (args.no_wait or args.quick):
                try:
                    waited, busy = measuring.wait_until_idle(args.idle, 600, say)
                except TimeoutError as error:
                    raise RaceError(f"{error}. The same command goes on; --no-wait measures all the same.") from None
            record = serve_once(server, round_, settings, questions, plan)
            record |= {"waited_seconds": waited, "busy_before": busy, "machine": here, "commit": commit, "plan": plan}
            records.append(record)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
            since = f"({time.perf_counter() - began:.0f} s)"
            say(f"round {round_ + 1} of {rounds}, {server.name}: {record['why'] or _short(record)} {since}")


def _plain_call(argv: Sequence[str]) -> str:
    """The race's own command, with PATH for what lies outside the checkout."""
    words = []
    for word in argv:
        name, equals, value = word.rpartition("=")
        outside = Path(value).is_absolute() and not Path(value).is_relative_to(ROOT)
        inside = str(Path(value).relative_to(ROOT)) if Path(value).is_absolute() and not outside else value
        words.append(name + equals + ("PATH" if outside else inside))
    return " ".join(["python benchmarks/serving/serve_race.py", *words])


def _short(record: Record) -> str:
    closed = [x for x in record["loads"] if x["loop"] == "closed"]
    kept = [x["rate"] for x in record["loads"] if x["loop"] == "open" and latency.kept_up(x)]
    rates = ", ".join(f"{x['requests_per_second']:.0f}" for x in closed)
    others = max((x.get("others_cores", 0) for x in record["loads"]), default=0)
    more = f", others used up to {others:.2f} cores" if others > 0.1 else ""
    return f"{rates} requests/s; keeps up with {max(kept, default=0):g}/s{more}"


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=f"all, or of {', '.join(s.name for s in SERVERS)}")
    parser.add_argument("--run", type=Path, help="the run folder to serve (default: quick on CIFAR-10, trained once)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each server is measured")
    parser.add_argument("--quick", action="store_true", help="one round of short loads, without waiting for idleness")
    parser.add_argument("--out", type=Path, help="the summary (default: benchmarks/results/serving.json)")
    parser.add_argument("--scratch", type=Path, default=ROOT / ".bench" / "scratch" / "serving")
    parser.add_argument("--python", action="append", default=[], metavar="ENVIRONMENT=PATH", help="serving=PATH")
    parser.add_argument("--idle", type=float, default=0.1, help="share of the cores that others may use before")
    parser.add_argument("--no-wait", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    args = parser.parse_args(argv)
    try:
        return race(args, argv)
    except RaceError as error:
        print(f"serve_race: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a script's background job inherits it ignored
        signal.signal(number, stop)
    sys.exit(main())
