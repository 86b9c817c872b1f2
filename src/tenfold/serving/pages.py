"""The pages for people: files that come with tenfold, the API's description, and what a browser may do with them."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import mimetypes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tenfold.serving import calls, description
from tenfold.serving.refusal import Refusal
from tenfold.serving.routes import route
from tenfold.serving.service import Service

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CSP,
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
mimetypes.add_type("text/javascript", ".js")


class Pages:
    def __init__(self, service: Service) -> None:
        self.service = service
        folder = importlib.resources.files("tenfold.serving") / "static"
        files = sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else []
        self.files = {file.name: file.read_bytes() for file in files if file.is_file()}

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/favicon.ico", self.icon, methods=["GET"]),
            Route("/static/{name}", self.static, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        route(request, "/")
        return self._file(request, "index.html")

    async def docs(self, request: Request) -> Response:
        route(request, "/docs")
        return self._file(request, "docs.html")

    async def icon(self, request: Request) -> Response:
        route(request, "/static")
        return self._file(request, "icon.svg")

    async def static(self, request: Request) -> Response:
        route(request, "/static")
        return self._file(request, request.path_params["name"])

    async def openapi(self, request: Request) -> Response:
        route(request, "/openapi.json")
        text = json.dumps(description.openapi(self.service.settings), ensure_ascii=False)
        return Response(text.encode(), media_type="application/json", headers={"cache-control": "no-cache"})

    def _file(self, request: Request, name: str) -> Response:
        data = self.files.get(name)
        if data is None:
            raise Refusal(404, "not_found", "There is no such file.")
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {**_HEADERS, "etag": tag}
        if calls.header(request.scope, b"if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(data, media_type=kind, headers=headers)
