"""A model that answers any request with four chunks and costs next to nothing itself.

Arguments: its port, the seconds before the first chunk, and the seconds before each other one.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

CHUNKS = 4
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def _frame(number: int) -> bytes:
    candidate: dict[str, object] = {"content": {"parts": [{"text": "word " * 12}], "role": "model"}, "index": 0}
    if number == CHUNKS - 1:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 900, "candidatesTokenCount": 15 * number, "totalTokenCount": 900 + 15 * number}
    event = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "stub", "responseId": "stub"}
    data = b"data: " + json.dumps(event).encode() + b"\r\n\r\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_FRAMES = [_frame(number) for number in range(CHUNKS)]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: float, pause: float) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET "):
                writer.write(_HEALTHY)
                continue
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            for number, frame in enumerate(_FRAMES):
                if seconds := pause if number else first:
                    await asyncio.sleep(seconds)
                writer.write(frame if number else _HEAD + frame)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: str, first: str = "0", pause: str = "0") -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, float(first), float(pause)), "127.0.0.1", int(port), limit=2**20
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
