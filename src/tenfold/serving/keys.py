"""API keys: who may ask."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from tenfold.errors import CallError
from tenfold.serving.calls import Scope, header
from tenfold.serving.refusal import Refusal

SHORTEST = 16
MAX_BYTES = 2**20


class Keys:
    """The keys of a file, as their SHA-256; none where ``path`` is None, and then everybody may ask."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: list[bytes] = []
        self.load()

    def load(self) -> None:
        """Reads the file again. Raises CallError, and keeps the keys that there were, where it holds none."""
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                lines = file.read(MAX_BYTES).decode("utf-8").splitlines()
        except OSError as error:
            raise CallError(f"--api-key-file {self._path}: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise CallError(f"--api-key-file {self._path} is not text.") from None
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys or min(map(len, keys)) < SHORTEST:
            raise CallError(
                f"--api-key-file {self._path} {'holds no key' if not keys else 'holds a key that is too short'}.",
                f"Write a key a line, of {SHORTEST} characters and more: "
                "python3 -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        self._known = [_digest(key) for key in keys]

    def check(self, scope: Scope) -> None:
        """Raises Refusal (401) for a request without one of the keys. Takes as long for each wrong key."""
        if self._path is None:
            return
        scheme, _, given = header(scope, b"authorization").partition(" ")
        if scheme.lower() != "bearer":
            given = header(scope, b"x-api-key")
        digest = _digest(given.strip())
        if not sum(hmac.compare_digest(digest, known) for known in self._known):
            raise Refusal(
                401,
                "no_key",
                "Send a key of this server: Authorization: Bearer KEY, or X-API-Key: KEY.",
                headers={"www-authenticate": "Bearer"},
                close=True,
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
