"""What one call of the model costs a worker: `python -m tests.benchmarks.model_call`.

CPU of this process for a call of 1, 11 and 39 turns against a stub with four chunks, in multiples of f: the CPU of a
bare Sanic request that answers a constant, measured in the same run.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import uvloop

from adapters.gemini.google_genai import GoogleGenaiTransport
from adapters.gemini.google_generativeai import GoogleGenerativeaiTransport
from adapters.gemini.model import Endpoint, GeminiModel, Transport
from adapters.gemini.rest import RestTransport
from domain.chat.calls import ThinkingLevel
from domain.chat.conversation import Conversation, Role, Turn
from tests.benchmarks.load import load, request_bytes
from tests.benchmarks.probes import cpu_seconds
from tests.benchmarks.stage import bare_server, model_stub

CALLS = int(os.environ.get("BENCH_CALLS", "400"))
AT_ONCE = 16
ROUNDS = 3
TRANSPORTS: dict[str, Callable[[Endpoint], Transport]] = {
    "rest": RestTransport,
    "google-genai": GoogleGenaiTransport,
    "google-generativeai": GoogleGenerativeaiTransport,
}


def main() -> None:
    with bare_server() as (bare_url, bare_pid), model_stub(pause=0.002) as stub_url:
        for name, transport in TRANSPORTS.items():
            for turns in (1, 11, 39):
                ratios = []
                for _ in range(ROUNDS):
                    f = uvloop.run(_bare(bare_url, bare_pid))
                    call = uvloop.run(_calls(transport, stub_url, _conversation(turns)))
                    ratios.append((call / f, call, f))
                ratio, call, f = sorted(ratios)[ROUNDS // 2]
                print(
                    f"{name:20} {turns:2} turns {call * 1e6:8.0f} µs {ratio:6.1f} f   (f = {f * 1e6:.0f} µs)",
                    flush=True,
                )


async def _bare(url: str, pid: int) -> float:
    used, requests = cpu_seconds(pid), 4_000
    await load(url, lambda _: request_bytes("GET", "/health"), requests=requests)
    return (cpu_seconds(pid) - used) / requests


async def _calls(transport: Callable[[Endpoint], Transport], url: str, conversation: Conversation) -> float:
    endpoint = Endpoint(api_key="stub", model="gemini-flash-latest", base_url=url)
    model = GeminiModel(endpoint, transport(endpoint))
    numbers = iter(range(CALLS + AT_ONCE))

    async def ask(most: int) -> None:
        for _, _ in zip(range(most), numbers, strict=False):
            async for _ in model.stream(conversation):
                pass

    await asyncio.gather(*(ask(1) for _ in range(AT_ONCE)))
    began = time.process_time()
    await asyncio.gather(*(ask(CALLS) for _ in range(AT_ONCE)))
    used = time.process_time() - began
    await model.close()
    return used / CALLS


def _conversation(turns: int) -> Conversation:
    texts = ("Why is the sky blue? " * 20, "Because of **Rayleigh** scattering, “so to say”. " * 10)
    said = tuple(Turn((Role.USER, Role.MODEL)[at % 2], texts[at % 2]) for at in range(turns))
    return Conversation(said, 4_096, "Be brief.", ThinkingLevel.LOW, 4_096)


if __name__ == "__main__":
    main()
