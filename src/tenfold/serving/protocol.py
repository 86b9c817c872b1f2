"""The Open Inference Protocol v2's addresses; what its tensors mean is in ``oip``."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tenfold import __version__
from tenfold.serving import calls, oip
from tenfold.serving.refusal import Refusal
from tenfold.serving.routes import Api, probe, route


class Protocol:
    def __init__(self, api: Api) -> None:
        self.api, self.service = api, api.service

    def routes(self) -> list[BaseRoute]:
        found: list[BaseRoute] = [
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
        ]
        for start in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            found += [
                Route(start, self.model, methods=["GET"]),
                Route(f"{start}/ready", self.model_ready, methods=["GET"]),
                Route(f"{start}/infer", self.infer, methods=["POST"]),
            ]
        return found

    async def server(self, request: Request) -> Response:
        route(request, "/v2")
        return _json({"name": "tenfold", "version": __version__, "extensions": [oip.EXTENSION]})

    async def live(self, request: Request) -> Response:
        route(request, "/v2/health/live")
        return Response(b'{"live": true}', media_type="application/json")

    async def ready(self, request: Request) -> Response:
        route(request, "/v2/health/ready")
        return probe(self.service.ready)

    async def model(self, request: Request) -> Response:
        route(request, "/v2/models/{name}")
        name, card = self._asked(request)
        return _json(oip.metadata(name, card))

    async def model_ready(self, request: Request) -> Response:
        route(request, "/v2/models/{name}/ready")
        name, _ = self._asked(request)
        well = self.service.ready
        return _json({"name": name, "ready": well}, 200 if well else 503)

    async def infer(self, request: Request) -> Response:
        call = route(request, "/v2/models/{name}/infer")
        name, _ = self._asked(request)
        call.model = name
        given = calls.header(request.scope, oip.HEADER_LENGTH.encode())
        if given and not (given.isdecimal() and len(given) < 12):
            raise Refusal(400, "bad_tensor", "Inference-Header-Content-Length is not a whole number.")
        head = {"op": "infer", "model": name, "header": int(given) if given else None}
        answer = await self.api.ask(request, call, head)
        length = answer.head.get("header")
        if length is None:
            return Response(bytes(answer.body), media_type="application/json")
        headers = {oip.HEADER_LENGTH: str(length)}
        return Response(bytes(answer.body), media_type="application/octet-stream", headers=headers)

    def _asked(self, request: Request) -> tuple[str, dict[str, Any]]:
        name, card = self.service.card(request.path_params["name"])
        version = request.path_params.get("version")
        if version is not None and version != card["version"]:
            raise Refusal(404, "unknown_model", f"{name} is here in the version {card['version']} alone.")
        return name, card


def _json(value: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), status, media_type="application/json"
    )
