"""Is the server in this container ready? Asked by the image's HEALTHCHECK every few seconds, so it imports little."""

from __future__ import annotations

import http.client

ROUTE = "/v2/health/ready"
SECONDS = 3.0


def ready(port: int) -> bool:
    """Whether the server on this machine says so; no proxy of the environment is asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", ROUTE)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
