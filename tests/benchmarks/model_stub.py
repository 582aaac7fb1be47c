"""A model that answers any request with four events, 2 ms apart, and costs next to nothing itself."""

from __future__ import annotations

import asyncio
import json
import sys

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PACE = 0.002


def _frame(number: int) -> bytes:
    candidate: dict[str, object] = {"content": {"parts": [{"text": "word " * 12}], "role": "model"}, "index": 0}
    if number == 3:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 900, "candidatesTokenCount": 15 * number, "totalTokenCount": 900 + 15 * number}
    event = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "stub", "responseId": "stub"}
    data = b"data: " + json.dumps(event).encode() + b"\r\n\r\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_FRAMES = [_frame(number) for number in range(4)]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(_HEAD)
            for frame in _FRAMES:
                writer.write(frame)
                await asyncio.sleep(_PACE)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
