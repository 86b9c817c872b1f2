"""What every request passes, whatever it asks: its id, its key, its figures, its line in the log, and one way for
errors to be answered. Plain ASGI, for it stands in every request's way."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from tenfold.errors import TenfoldError
from tenfold.serving.calls import KEY, Call, Memory, Receive, Scope, identified
from tenfold.serving.keys import Keys
from tenfold.serving.log import Log
from tenfold.serving.metrics import Metrics
from tenfold.serving.refusal import Refusal

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Asked without a key: whoever looks after the server has none, and the page asks its user for one.
OPEN = ("/v2/health/live", "/v2/health/ready", "/ping", "/", "/docs", "/openapi.json", "/favicon.ico")
_WORDS = {404: ("not_found", "There is nothing at this address. GET /docs says what there is.")}


class Gate:
    def __init__(
        self, app: Any, keys: Keys, memory: Memory, metrics: Metrics, log: Log, open_paths: tuple[str, ...] = ()
    ):
        self.app, self.keys, self.memory, self.metrics, self.log = app, keys, memory, metrics, log
        self.open = frozenset((*OPEN, *open_paths))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = scope[KEY] = identified(scope)
        scope["app"] = self.app  # Starlette then raises what it would else answer by itself

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", call.id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            path: str = scope["path"]
            if path not in self.open and not path.startswith("/static/"):
                self.keys.check(scope)
            await self.app(scope, receive, told)
        except Refusal as refusal:
            await self._refuse(refusal, call, scope, told)
        except HTTPException as error:
            await self._refuse(_of_starlette(error, scope), call, scope, told)
        except TenfoldError as error:
            await self._refuse(Refusal(error.http_status, "failed", error.message), call, scope, told)
        except Exception as error:
            self.log.event("a request failed, which is a bug", error=repr(error), request_id=call.id)
            traceback.print_exc()
            await self._refuse(Refusal(500, "failed", "The server failed. Its log says why."), call, scope, told)
        finally:
            self.memory.used -= call.held
            self._count(call, scope)

    async def _refuse(self, refusal: Refusal, call: Call, scope: Scope, send: Send) -> None:
        call.code = refusal.code
        self.metrics.refusals.labels(refusal.code).inc()
        if call.status:  # the answer has begun; nothing can be told any more
            raise ConnectionAbortedError(refusal.message)
        if refusal.code == "client_gone":
            call.status = refusal.status
            return
        body = refusal.body(call.id, flat=scope["path"].startswith("/v2"))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in refusal.headers.items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"cache-control", b"no-store")]
        if refusal.close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _count(self, call: Call, scope: Scope) -> None:
        metrics, ms = self.metrics, call.since()
        metrics.requests.labels(call.route, str(call.status), call.model).inc()
        metrics.seconds.labels(call.route).observe(ms / 1000)
        for stage in ("receive", "wait", "decode", "compute"):
            if stage in call.ms:
                metrics.stages.labels(stage).observe(call.ms[stage] / 1000)
        if self.log.form == "none":
            return
        record = {"method": scope["method"], "path": scope["path"], "status": call.status, "ms": round(ms, 3)}
        if call.model:
            record["model"] = call.model
        if call.code:
            record["code"] = call.code
        if call.ms:
            record["stages"] = {name: round(value, 3) for name, value in call.ms.items()}
        record["client"] = scope["client"][0] if scope.get("client") else None
        record["request_id"] = call.id
        self.log.request(record)


def _of_starlette(error: HTTPException, scope: Scope) -> Refusal:
    if error.status_code == 405:
        headers = {k.lower(): v for k, v in (error.headers or {}).items()}
        allowed = headers.get("allow", "")
        said = f"{scope['method']} is not answered here; {allowed} is." if allowed else "This method is not answered."
        return Refusal(405, "wrong_method", said, headers=headers)
    code, message = _WORDS.get(error.status_code, ("bad_request", str(error.detail)))
    return Refusal(error.status_code, code, message)
