"""The models as the front sees them: which there are, whether they answer, and how one is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.runtimes.base import RUNTIMES
from tenfold.serving.calls import Call, Memory, Receive
from tenfold.serving.keys import Keys
from tenfold.serving.log import Log
from tenfold.serving.metrics import Metrics
from tenfold.serving.pool import Answer, Pool, full_queue
from tenfold.serving.refusal import Refusal
from tenfold.serving.settings import Settings

DEVICE_BATCH = 64  # pictures for one call of a model on a card
QUICK_REFUSALS = 100  # a second that are told of a full queue at once; each more is held back for
HELD_BACK = 1.0  # seconds


class Service:
    """``state`` is ``starting``, ``ready`` or ``stopping``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = "starting"
        self.log = Log(settings.log)
        self.metrics = Metrics(self.log.event)
        self.memory = Memory(settings.memory)
        self.keys = Keys(settings.key_file)
        self._reloading = asyncio.Lock()
        self._refused = 0, 0  # in which second, how often
        self._decoders: Pool | None = None
        if splits(settings):
            self._decoders = self._pool("decode", settings.workers, settings.batch)
            self._computers = self._pool("compute", 1, DEVICE_BATCH)
        else:
            self._computers = self._pool("both", settings.workers, settings.batch)
        self._observe()

    def _pool(self, role: str, count: int, batch: int) -> Pool:
        models = self.settings.models
        spec = {
            "role": role,
            "paths": {name: str(path) for name, path in models.paths.items()},
            "runtime": models.runtime,
            "device": models.device,
            "threads": None if role == "compute" else 1,
            "threshold": models.threshold,
            "max_pixels": models.max_pixels,
            "max_parts": models.max_parts,
        }
        ahead, settings = 1 if role == "compute" else 2, self.settings
        return Pool(spec, count, batch, settings.queue, self.metrics, deadline=settings.deadline, ahead=ahead)

    def _observe(self) -> None:
        metrics = self.metrics
        metrics.queue.set_function(lambda: sum(pool.waiting for pool in self.pools))
        metrics.memory.set_function(lambda: self.memory.used)
        metrics.workers.set_function(lambda: sum(pool.ready for pool in self.pools))

    # ---- what there is -----------------------------------------------------------------------------------------------

    @property
    def pools(self) -> list[Pool]:
        return [self._computers] if self._decoders is None else [self._decoders, self._computers]

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        return self.state == "ready" and all(pool.ready for pool in self.pools)

    @property
    def cards(self) -> Mapping[str, dict[str, Any]]:
        return self._computers.cards

    def card(self, name: str | None) -> tuple[str, dict[str, Any]]:
        """(name, card) of the model called so, or of the first. Raises Refusal: 404, or 503 before there are any."""
        self.require_ready()
        if name is None:
            return next(iter(self.cards.items()))
        if name not in self.cards:
            raise Refusal(404, "unknown_model", f"No model is called {name[:60]!r} here. GET /models lists them.")
        return name, self.cards[name]

    def require_ready(self) -> None:
        if self.state == "starting":
            raise Refusal(503, "not_ready", "The models are being loaded. Try again in a second.")
        if not self.cards:
            raise Refusal(503, "not_ready", "There are no models. See the server's log.")

    # ---- its life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Loads and warms up. Raises TenfoldError."""
        await asyncio.gather(*(pool.start() for pool in self.pools))
        self.state = "ready"
        self._label_models()

    async def reload(self) -> None:
        """Takes up what the models' paths and the key file hold now; where they can't be used the old ones stay."""
        async with self._reloading:
            try:
                self.keys.load()
                for pool in self.pools:
                    await pool.reload()
            except TenfoldError as error:
                self.metrics.reloads.labels("failed").inc()
                self.log.event(f"not reloaded, the old models answer on: {error}")
                return
            self.metrics.reloads.labels("done").inc()
            self._label_models()
            self.log.event("reloaded", models=", ".join(f"{n} {c['version']}" for n, c in self.cards.items()))

    async def close(self) -> None:
        for pool in self.pools:
            await pool.close()

    def _label_models(self) -> None:
        self.metrics.models.clear()
        for name, card in self.cards.items():
            self.metrics.models.labels(name, card["version"]).set(1)

    # ---- asking ------------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Raises Refusal (503) where the queue is full, before a request's body is read.

        Many clients that come again at once, whatever Retry-After says, could keep the front so busy with refusing that
        the workers get no time: of two cores, 1,000 such clients left 1 picture of 5 that could have been answered. So
        beyond the first of a second they are made to wait for it.
        """
        if not any(pool.full for pool in self.pools):
            return
        now = int(time.monotonic())
        if now != self._refused[0]:
            self._refused = now, 0
        self._refused = now, self._refused[1] + 1
        if self._refused[1] > QUICK_REFUSALS:
            await asyncio.sleep(HELD_BACK)
        raise full_queue()

    async def ask(self, head: dict[str, Any], body: bytes, call: Call, receive: Receive) -> Answer:
        """The workers' answer to a job. Raises Refusal: what the worker refuses, 503 where the queue is full, 504 at
        the deadline, 499 where the client leaves, whose job is then dropped from the queue."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Answer]
        if self._decoders is None or head["op"] == "explain":
            asked = self._computers.submit(head, body)
        else:
            asked = loop.create_task(self._in_two(head, body))
        gone: asyncio.Task[Any] = loop.create_task(_next(receive))
        gone.add_done_callback(lambda _: asked.cancel())
        try:
            async with asyncio.timeout(self.settings.deadline):
                answer = await asked
        except TimeoutError:
            seconds = self.settings.deadline
            raise Refusal(504, "deadline", f"There was no answer within {seconds:g} s. Try again later.") from None
        except asyncio.CancelledError:
            if gone.done() and not gone.cancelled():
                raise Refusal(499, "client_gone", "The client left.") from None
            raise
        finally:
            gone.cancel()
        call.ms.update(answer.head["ms"])
        if "pictures" in answer.head:
            self._count(call.model, answer.head)
        return answer

    async def _in_two(self, head: dict[str, Any], body: bytes) -> Answer:
        """Decoded by one worker, computed by the one with the device."""
        assert self._decoders is not None
        first = await self._decoders.submit({**head, "op": "decode", "form": head["op"]}, body)
        task = {**first.head["task"], "op": "compute", "model": head["model"]}
        second = await self._computers.submit(task, bytes(first.body))
        before, after = first.head["ms"], second.head["ms"]
        times = {"decode": before["decode"], "compute": after["compute"], "wait": before["wait"] + after["wait"]}
        return Answer({**second.head, "ms": times}, second.body)

    def _count(self, model: str, head: dict[str, Any]) -> None:
        unknown, failed = head.get("unknown", 0), head.get("failed", 0)
        pictures = self.metrics.pictures
        pictures.labels(model, "answered").inc(head["pictures"] - unknown)
        if unknown:
            pictures.labels(model, "unknown").inc(unknown)
        if failed:
            pictures.labels(model, "unreadable").inc(failed)


async def _next(receive: Receive) -> Any:
    """The next event of a request that is there whole: that its client has left."""
    return await receive()


def splits(settings: Settings) -> bool:
    """Whether one worker computes and the others decode: on a device that is not the processor. An engine's ``auto``
    may be one, ONNX Runtime's is not."""
    models = settings.models
    return models.device not in ("auto", "cpu") or (models.runtime not in RUNTIMES and models.device != "cpu")
