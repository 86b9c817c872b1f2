"""The front process: sockets, signals, and the order in which a server begins and ends.

It listens before the models are loaded, so that probes are answered; it is ready when the workers are warm. SIGTERM and
Ctrl-C end it: no new connections, the requests under way are answered, exit code 0. SIGHUP takes up what the models'
paths and the key file hold now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from tenfold.errors import CallError, StoppedError, TenfoldError
from tenfold.serving.app import build
from tenfold.serving.connection import Limits, protocol
from tenfold.serving.service import Service
from tenfold.serving.settings import Settings

BACKLOG = 2048
SPARE = 200  # file descriptors beside those of connections


def run(settings: Settings, ready: Callable[[Service, str], None]) -> None:
    """Serves until it is told to stop. ``ready`` is called with the address when the models answer.

    Raises CallError where it can't listen, TenfoldError where the models can't be loaded, StoppedError where it was
    told to stop at once (a second Ctrl-C).
    """
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn").propagate = False
    service = Service(settings)
    listener = _listen(settings)
    with listener, asyncio.Runner(loop_factory=_loop()) as runner:
        runner.run(_serve(service, listener, ready))


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        raise CallError(
            f"Can't listen on {settings.host} port {settings.port}: {why}.", "Take another with --host and --port."
        ) from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn's, whose signals are this module's affair: after SIGTERM it would end by that signal, not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(service: Service, listener: socket.socket, ready: Callable[[Service, str], None]) -> None:
    settings = service.settings
    limits = Limits(_within_descriptors(settings, service), service.metrics)
    config = uvicorn.Config(
        build(service),
        http=protocol(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=2 * int(settings.idle_timeout) + 1,  # connections have clocks of their own
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    server = _Server(config)
    stopped = _signals(service, server)
    answering = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(_start(service, listener, ready, server))
    await answering
    try:
        if not starting.done():  # told to stop while the models were being loaded
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
    finally:
        await service.close()
        service.log.close()
    if len(stopped) > 1:
        raise StoppedError("Stopped at once; requests under way were not answered.")


async def _start(
    service: Service, listener: socket.socket, ready: Callable[[Service, str], None], server: _Server
) -> None:
    try:
        await service.start()
    except TenfoldError:
        server.should_exit = True
        raise
    host, port = listener.getsockname()[:2]
    ready(service, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def _signals(service: Service, server: _Server) -> list[int]:
    """The signals that told to stop, in a list that grows."""
    loop = asyncio.get_running_loop()
    stopped: list[int] = []
    kept: set[asyncio.Task[None]] = set()

    def stop(number: int) -> None:
        stopped.append(number)
        service.state = "stopping"
        server.should_exit = True
        if len(stopped) > 1:
            server.force_exit = True
        else:
            service.log.event("stopping", requests=len(server.server_state.tasks))

    def reload() -> None:
        task = loop.create_task(service.reload())
        kept.add(task)
        task.add_done_callback(kept.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stopped


def _within_descriptors(settings: Settings, service: Service) -> Settings:
    """The settings with no more connections than the system lets a process have."""
    import dataclasses
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + SPARE
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)
    if most >= settings.max_connections:
        return settings
    service.log.event(f"{most} connections at once are all that the limit on open files allows")
    return dataclasses.replace(settings, max_connections=most)
