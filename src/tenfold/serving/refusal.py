"""What a server answers where it doesn't answer what was asked: a status, a code for programs, a sentence for people.

400 bad_request, bad_json, bad_multipart, bad_base64, no_picture, bad_tensor, bad_http, too_many_pieces
401 no_key            404 not_found, unknown_model     405 wrong_method       408 too_slow
413 too_large, too_many_pictures      415 encoded      422 bad_picture        431 too_many_headers
499 client_gone (nobody is there to read it; for logs and figures)
500 failed            501 no_heat_map                  504 deadline
503 queue_full, no_memory, not_ready, stopping, worker_lost
too_many_connections and too_many_requests are told by figures alone: the connection is closed without an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


class Refusal(Exception):
    """``headers`` go with the answer; ``close`` ends the connection after it, for what is left of the request is not
    read."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})
        self.close = close
        if status == 503:
            self.headers.setdefault("retry-after", "1")

    def body(self, request_id: str, flat: bool = False) -> bytes:
        """JSON. ``flat`` as the Open Inference Protocol has it: ``error`` is the sentence itself."""
        if flat:
            value: dict[str, object] = {"error": self.message, "code": self.code, "request_id": request_id}
        else:
            value = {"error": {"code": self.code, "message": self.message, "request_id": request_id}}
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
