"""A server that answers every request alike without looking at it: what the load generator itself can reach.

python benchmarks/serving/trivial.py PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

BODY = b'{"class":"none","probability":1.0}'
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Trivial(asyncio.Protocol):
    def __init__(self) -> None:
        self.head, self.left = b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        while data:
            if self.left:
                used = min(self.left, len(data))
                self.left -= used
                data = data[used:]
                if not self.left:
                    self.transport.write(REPLY)
                continue
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            self.head, self.left = b"", int(length or 0)
            if not self.left:
                self.transport.write(REPLY)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
