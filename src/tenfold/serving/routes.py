"""The API: what each address answers. Pages are in ``pages``, the Open Inference Protocol's in ``protocol``."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tenfold.bundle import store
from tenfold.errors import TenfoldError
from tenfold.serving import calls
from tenfold.serving.calls import KEY, Call
from tenfold.serving.pool import Answer
from tenfold.serving.refusal import Refusal
from tenfold.serving.service import Service

MAX_TOP = 1000
_DRY = {"cache-control": "no-store"}
_REPORT_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"


class Api:
    def __init__(self, service: Service) -> None:
        self.service = service
        self._reports: dict[Path, tuple[os.stat_result, bytes]] = {}

    def routes(self) -> list[BaseRoute]:
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/invocations", self.predict, methods=["POST"]),
            Route("/explain", self.explain, methods=["POST"]),
            Route("/ping", self.ping, methods=["GET"]),
            Route("/models", self.models, methods=["GET"]),
            Route("/models/{name}", self.model, methods=["GET"]),
            Route("/models/{name}/report", self.report, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        clouds = self.service.settings.routes
        if "health" in clouds:
            routes.append(Route(clouds["health"], self.ping, methods=["GET"]))
        if "predict" in clouds:
            routes.append(Route(clouds["predict"], self.vertex, methods=["POST"]))
        return list(routes)

    # ---- pictures ----------------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        call = route(request, request.scope["path"])
        top = _top(request)
        name, card = self._asked(request, call)
        kind = calls.header(request.scope, b"content-type")
        answer = await self.ask(request, call, {"op": "classify", "model": name, "top": top, "type": kind})
        ms = {**answer.head["ms"], "total": round(call.since(), 3)}
        opening = {"model": name, "version": answer.head["version"], "request_id": call.id}
        return _joined({**opening, "threshold": card["threshold"], "ms": ms}, "predictions", answer)

    async def explain(self, request: Request) -> Response:
        call = route(request, "/explain")
        name, card = self._asked(request, call)
        cls = request.query_params.get("class")
        if cls is not None and cls not in card["classes"]:
            raise Refusal(400, "bad_request", f"{name} has no class {cls[:60]!r}.")
        kind = calls.header(request.scope, b"content-type")
        head = {"op": "explain", "model": name, "top": _top(request), "type": kind, "class": cls}
        answer = await self.ask(request, call, head)
        ms = {**answer.head["ms"], "total": round(call.since(), 3)}
        opening = {"model": name, "version": answer.head["version"], "request_id": call.id, "ms": ms}
        return _joined(opening, "explanation", answer)

    async def vertex(self, request: Request) -> Response:
        call = route(request, "vertex")
        name, _ = self._asked(request, call)
        answer = await self.ask(request, call, {"op": "vertex", "model": name})
        return Response(bytes(answer.body), media_type="application/json", headers=_DRY)

    async def ask(self, request: Request, call: Call, head: dict[str, Any]) -> Answer:
        """The request's body read and the workers asked."""
        service, settings = self.service, self.service.settings
        await service.admit()
        body = await calls.body(
            request.scope,
            request.receive,
            call,
            service.memory,
            most=settings.max_body,
            seconds=settings.receive_timeout,
        )
        return await service.ask(head, body, call, request.receive)

    def _asked(self, request: Request, call: Call) -> tuple[str, dict[str, Any]]:
        name, card = self.service.card(request.query_params.get("model"))
        call.model = name
        return name, card

    # ---- what there is -----------------------------------------------------------------------------------------------

    async def ping(self, request: Request) -> Response:
        route(request, "/ping")
        return probe(self.service.ready)

    async def models(self, request: Request) -> Response:
        route(request, "/models")
        self.service.require_ready()
        return _json({"models": [await self._described(name) for name in self.service.cards]})

    async def model(self, request: Request) -> Response:
        route(request, "/models/{name}")
        name, _ = self.service.card(request.path_params["name"])
        return _json(await self._described(name))

    async def _described(self, name: str) -> dict[str, Any]:
        card = self.service.cards[name]
        report = await asyncio.to_thread(_report_of, self.service.settings.models.paths[name])
        first = name == next(iter(self.service.cards))
        return {**card, "name": name, "run": card["name"], "default": first, "report": report is not None}

    async def report(self, request: Request) -> Response:
        route(request, "/models/{name}/report")
        name, _ = self.service.card(request.path_params["name"])
        path = await asyncio.to_thread(_report_of, self.service.settings.models.paths[name])
        if path is None:
            raise Refusal(404, "not_found", f"There is no report beside {name}.")
        headers = {"content-security-policy": _REPORT_CSP, **_DRY}
        return Response(self._read(path), media_type="text/html", headers=headers)

    def _read(self, path: Path) -> bytes:
        """The file's bytes, the same ones for every request, however many take them slowly."""
        now = path.stat()
        before, data = self._reports.get(path, (None, b""))
        if before is None or (before.st_mtime_ns, before.st_size) != (now.st_mtime_ns, now.st_size):
            data = path.read_bytes()
            self._reports[path] = now, data
        return data

    async def metrics(self, request: Request) -> Response:
        route(request, "/metrics")
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def route(request: Request, name: str) -> Call:
    """The request's call, which figures know by ``name`` from now on."""
    call: Call = request.scope[KEY]
    call.route = name
    return call


def probe(well: bool) -> Response:
    return Response(b"{}" if well else b'{"ready": false}', 200 if well else 503, media_type="application/json")


def _top(request: Request) -> int:
    given = request.query_params.get("top", "3")
    if not (given.isdecimal() and given.isascii() and len(given) < 5 and 1 <= int(given) <= MAX_TOP):
        raise Refusal(400, "bad_request", f"top must be a whole number from 1 to {MAX_TOP}, not {given[:20]!r}.")
    return int(given)


def _joined(value: dict[str, Any], name: str, answer: Answer) -> Response:
    """``value`` as JSON with, under ``name``, the JSON that a worker wrote."""
    text = json.dumps(value, ensure_ascii=False).encode()
    body = b"".join((text[:-1], b', "', name.encode(), b'": ', answer.body, b"}\n"))
    return Response(body, media_type="application/json", headers=_DRY)


def _json(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return Response(text + b"\n", media_type="application/json", headers=_DRY)


def _report_of(path: Path) -> Path | None:
    """The report of the run that the model at ``path`` belongs to, where there is one."""
    try:
        folder = store.locate(path)
        report = folder.parent / "report.html"
        return report if folder.name == "model" and not report.is_symlink() and report.is_file() else None
    except (TenfoldError, OSError):
        return None
