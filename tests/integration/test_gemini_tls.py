"""Gemini over TLS: a certificate is valid if the system trusts it, as behind a proxy that re-signs."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

import pytest

from tests.contracts.test_language_model import TRANSPORTS
from tests.support.certificates import self_signed
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT
from tests.support.raw_http import RawServer, raw_server

ASK = """
import asyncio, sys
from domain.errors import ModelError
from tests.contracts.test_language_model import gemini, read

async def main():
    model = gemini(sys.argv[1], sys.argv[2])
    for _ in range(2):
        try:
            print("".join(chunk.text for chunk in await read(model)))
        except ModelError as error:
            print(error.code)
    await model.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "certificate.pem")


async def said(transport: str, server: RawServer, **environment: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, transport, server.url,
        cwd=ROOT, env={"PATH": os.environ["PATH"], **environment}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), PROCESS_HANG)
    return [line for line in output.decode().splitlines() if "model_call_failed" not in line]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_certificates_are_the_systems(transport: str, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with raw_server(tls) as server:
        for _ in range(2):
            server.events({"candidates": [{"content": {"parts": [{"text": "Fine."}]}, "finishReason": "STOP"}]})
        assert await said(transport, server, SSL_CERT_FILE=str(certificate)) == ["Fine.", "Fine."]
        assert server.connections == 1, "TLS does not start again with each call"
        assert await said(transport, server) == ["model_unavailable", "model_unavailable"]
        assert len(server.asked) == 2
