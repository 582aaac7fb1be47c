"""Gemini over TLS: a certificate is valid if the system trusts it, as behind a proxy that re-signs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contracts.test_language_model import TRANSPORTS
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
    """Of 127.0.0.1, signed by nobody else, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gemini.test")])
    today = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(built.public_bytes(encoding) + key.private_bytes(encoding, private, serialization.NoEncryption()))
    return path


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
