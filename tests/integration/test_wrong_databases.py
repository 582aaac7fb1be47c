"""Wrong databases: each is refused with the host and the cause, in `check` and in the log, without the password."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from adapters.postgres.connection import rows
from adapters.postgres.migrate import migrate
from domain.errors import DatabaseUnavailable
from tests.support.database import connected, execute, run_apart
from tests.support.patience import HANG, PROCESS_HANG
from tests.support.pooler import through
from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.tls_postgres import tls_front


def certificate(path: Path, host: str) -> Path:
    """Of a host, signed by nobody else, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "postgres.test")])
    today = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(built.public_bytes(encoding) + key.private_bytes(encoding, private, serialization.NoEncryption()))
    return path


@dataclass
class World:
    url: str
    tls: str
    """The same by TLS, with a certificate of 127.0.0.1."""
    tls_of_another: str
    ca: Path
    another_ca: Path
    silent: str
    """Takes connections and says nothing."""
    stranger: str
    """Not Postgres."""
    closing: str
    """Ends each connection."""


@pytest.fixture(scope="module")
async def world(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder, parts = tmp_path_factory.mktemp("tls"), urlsplit(database_url)
    assert parts.hostname is not None
    ours, another = certificate(folder / "ours.pem", "127.0.0.1"), certificate(folder / "another.pem", "127.0.0.9")
    contexts = []
    for file in (ours, another):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(file)

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.close()

    silent = socket.create_server(("127.0.0.1", 0))
    async with (
        tls_front(parts.hostname, parts.port or 5432, contexts[0]) as tls,
        tls_front(parts.hostname, parts.port or 5432, contexts[1]) as tls_of_another,
        await asyncio.start_server(stranger, "127.0.0.1", 0) as strange,
        await asyncio.start_server(closing, "127.0.0.1", 0) as closed,
    ):
        yield World(
            url=database_url,
            tls=through(database_url, tls),
            tls_of_another=through(database_url, tls_of_another),
            ca=ours,
            another_ca=another,
            silent=through(database_url, silent.getsockname()[1]),
            stranger=through(database_url, strange.sockets[0].getsockname()[1]),
            closing=through(database_url, closed.sockets[0].getsockname()[1]),
        )
    silent.close()


def replaced(url: str, **changes: str) -> str:
    return urlsplit(url)._replace(**changes).geturl()


NOT_TRUSTED = "The database's certificate is not accepted. self"
WRONG: dict[str, tuple[Callable[[World], str], str]] = {
    "password": (lambda w: w.url.replace(f":{urlsplit(w.url).password}@", ":wr0ng@"), "the user or the password"),
    "user": (lambda w: w.url.replace(f"{urlsplit(w.url).username}:", "nobody:", 1), "refused the user or the password"),
    "no password": (lambda w: w.url.replace(f":{urlsplit(w.url).password}@", "@"), "refused the user or the password"),
    "database": (lambda w: replaced(w.url, path="/missing"), "The database does not exist"),
    "host": (lambda w: w.url.replace("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
    "port": (lambda w: through(w.url, free_port()), "nothing listens there (connection refused)"),
    "no host of two": (lambda w: w.url.replace(urlsplit(w.url).netloc.rpartition("@")[2], "127.0.0.1:1,127.0.0.1:2"),
                       "127.0.0.1:1,127.0.0.1:2: nothing listens there"),
    "silence": (lambda w: w.silent, "no answer in time"),
    "another protocol": (lambda w: f"{w.stranger}?sslmode=disable", "the server closed the connection"),
    "another protocol by TLS": (lambda w: f"{w.stranger}?sslmode=require", "does not speak TLS, which sslmode demands"),
    "closed": (lambda w: w.closing, "the server closed the connection"),
    "no TLS": (lambda w: f"{w.url}?sslmode=require", "does not speak TLS, which sslmode demands"),
    "no TLS, verified": (lambda w: f"{w.url}?sslmode=verify-full", "does not speak TLS, which sslmode demands"),
    "the system's authorities": (lambda w: f"{w.tls}?sslmode=verify-full", NOT_TRUSTED),
    "channel binding": (lambda w: f"{w.tls}?sslmode=require&channel_binding=require", NOT_TRUSTED),
    "another authority": (lambda w: f"{w.tls}?sslmode=verify-full&sslrootcert={w.another_ca}", NOT_TRUSTED),
    "another name": (lambda w: f"{w.tls_of_another}?sslmode=verify-full&sslrootcert={w.another_ca}", "IP address"),
    "socket": (lambda w: replaced(w.url, netloc=w.url.split("//")[1].split("@")[0] + "@", query="host=/nowhere"),
               "the socket does not exist"),
    "setting": (lambda w: f"{w.url}?options=-c%20nonsense%3D1", "is not known to the server"),
    "value": (lambda w: f"{w.url}?options=-c%20jit%3Dnonsense", "is not known to the server"),
    "schema": (lambda w: f"{w.url}?options=-c%20search_path%3Dnowhere", "is not migrated"),
    "standby": (lambda w: f"{w.url}?target_session_attrs=standby", "no host is as target_session_attrs demands"),
    "read-only": (lambda w: f"{w.url}?options=-c%20default_transaction_read_only%3Don", "accepts no writes"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
async def test_it_is_refused_with_its_cause(world: World, case: str) -> None:
    make, words = WRONG[case]
    url = make(world)
    async with connected(url, acquire_seconds=1) as postgres:
        with capture_logs() as logs, pytest.raises(DatabaseUnavailable) as caught:
            async with asyncio.timeout(HANG):
                await postgres.check()
    assert words in caught.value.cause
    assert caught.value.cause.startswith(("nowhere.invalid", "127.0.0.1", "/nowhere")), "the host"
    assert "127.0.0.1" not in caught.value.detail, "clients read it"
    assert {line["cause"] for line in logs if line["event"] == "database_unavailable"} == {caught.value.cause}
    for secret in (urlsplit(world.url).password, "wr0ng"):
        assert secret
        assert secret not in caught.value.cause + str(logs)


@pytest.mark.parametrize("case", ["password", "database", "port", "another authority", "setting"])
async def test_migrate_says_the_same(world: World, case: str) -> None:
    make, words = WRONG[case]
    with pytest.raises(DatabaseUnavailable) as caught:
        await asyncio.to_thread(run_apart, migrate(make(world)))
    assert words in caught.value.cause


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require",
        "sslmode=no-verify",
        "sslmode=verify-full&sslrootcert={ca}",
        "sslmode=verify-ca&sslrootcert={ca}",
        "sslrootcert={ca}",
    ],
)
async def test_a_private_authority(world: World, query: str) -> None:
    async with connected(f"{world.tls}?{query.format(ca=world.ca)}") as postgres:
        await postgres.check()


async def test_a_certificate_of_another_name_by_its_authority(world: World) -> None:
    async with connected(f"{world.tls_of_another}?sslmode=verify-ca&sslrootcert={world.another_ca}") as postgres:
        await postgres.check()


@pytest.mark.parametrize("how", ["refuses", "never answers"])
async def test_a_host_that_is_away_is_passed_over(world: World, how: str) -> None:
    away = f"127.0.0.1:{free_port()}" if how == "refuses" else urlsplit(world.silent).netloc.rpartition("@")[2]
    own = urlsplit(world.url).netloc.rpartition("@")[2]
    async with connected(world.url.replace(own, f"{away},{own}"), acquire_seconds=3):
        found = await asyncio.gather(*(rows("SELECT 1 AS one, pg_sleep(0.01)") for _ in range(5)))
        assert [row["one"] for (row,) in found] == [1] * 5


async def test_privileges_that_are_missing(world: World) -> None:
    await execute(world.url, "CREATE ROLE reader LOGIN PASSWORD 'reader-hush'")
    try:
        parts = urlsplit(world.url)
        url = replaced(world.url, netloc=f"reader:reader-hush@{parts.netloc.rpartition('@')[2]}")
        async with connected(url):
            with pytest.raises(DatabaseUnavailable) as caught:
                await rows("SELECT id FROM messages")
        assert "does not grant its user the privileges" in caught.value.cause
    finally:
        await execute(world.url, "DROP ROLE reader")


@pytest.mark.parametrize("case", ["password", "another authority", "silence"])
async def test_check_says_it_too(world: World, redis_url: str, case: str) -> None:
    make, words = WRONG[case]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": make(world), "REDIS_URL": redis_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "entrypoints.cli", "check", cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), PROCESS_HANG)
    [line] = [line for line in output.decode().splitlines() if line.startswith("postgres: ")]
    assert process.returncode == 1
    assert words in line or (case == "silence" and "no answer" in line)
