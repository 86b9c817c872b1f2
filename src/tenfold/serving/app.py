"""The application: every address, behind the gate."""

from __future__ import annotations

from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router

from tenfold.serving.gate import Gate
from tenfold.serving.pages import Pages
from tenfold.serving.protocol import Protocol
from tenfold.serving.routes import Api
from tenfold.serving.service import Service

_EXPOSED = ["x-request-id", "retry-after", "inference-header-content-length"]


def build(service: Service) -> Any:
    """The ASGI application of ``service``."""
    api = Api(service)
    routes: list[BaseRoute] = [*api.routes(), *Protocol(api).routes(), *Pages(service).routes()]
    settings = service.settings
    open_paths = tuple(settings.routes[name] for name in ("health",) if name in settings.routes)
    app: Any = Router(routes, redirect_slashes=False)
    app = Gate(app, service.keys, service.memory, service.metrics, service.log, open_paths)
    if settings.origins:
        app = CORSMiddleware(
            app, settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=_EXPOSED
        )
    return app
