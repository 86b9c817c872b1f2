"""The API's description in OpenAPI 3.1: what /docs shows and programs read."""

from __future__ import annotations

from typing import Any

from tenfold import __version__
from tenfold.serving.settings import Settings


def openapi(settings: Settings) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "tenfold serve", "version": __version__}, "paths": {}}
