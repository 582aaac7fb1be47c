"""Any Redis by its URL: what works, and what does not with its cause, at start, in the log and in /ready."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from adapters.redis.connection import RedisConnection
from application.readiness import CheckReadiness, Shutdown
from domain.errors import RedisMisconfigured, RedisUnavailable
from domain.ids import MessageId
from entrypoints.container import Container
from tests.support.authority import Authority, refusing_port, server_context
from tests.support.patience import PROCESS_HANG
from tests.support.ports import free_port
from tests.support.processes import ROOT
from tests.support.redis_lab import PASSWORD, SENTINEL_PASSWORD, SERVICE, Forwarder, LabSentinel, LabValkey, until_true
from tests.support.redis_users import Product, done

USER, USERS_PASSWORD = "app", "the-password-of-the-user"
NAMESPACE = "gemini-backend"


def minimal_acl() -> str:
    """What docs/redis.md says the product needs."""
    text = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(r"(?s)```\nACL SETUSER (.*?)\n```", text)
    assert found is not None
    return " ".join(found[1].replace("\\\n", " ").split()).replace("PASSWORD", USERS_PASSWORD)


@dataclass
class Lab:
    """Servers of all kinds, and what leads to them."""

    plain: LabValkey
    cluster: LabValkey
    sentinel: LabSentinel
    authority: Authority
    other: Authority
    tls: int
    tls_of_another_address: int
    tls_for_clients: int
    refusing: int
    talkers: dict[str, int]
    client_certificate: Path

    def url(self, port: int, *, scheme: str = "rediss", more: str = "") -> str:
        return f"{self.plain.url_at(port, scheme=scheme)}?{more}"


async def _talker(said: bytes) -> asyncio.Server:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            writer.write(said)
        writer.close()

    return await asyncio.start_server(say, "127.0.0.1", 0)


#: Servers that say the same to each command.
TALKERS = {
    "silent": b"",
    "web": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "old": b"*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n",
    "protected": b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n",
    "clients": b"-ERR max number of clients reached\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "moved": b"-MOVED 3999 192.0.2.1:6381\r\n",
    "masterdown": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    "misconf": b"-MISCONF Valkey is configured to save RDB snapshots, but it's unable to persist to disk.\r\n",
    "script of Redis 6": b"-ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not"
    b" allowed when used memory > 'maxmemory'.\r\n",
}


@pytest.fixture(scope="module")
async def lab(data_dir: Path) -> AsyncIterator[Lab]:
    folder = data_dir / "lab"
    plain, cluster = LabValkey(folder / "plain"), LabValkey(folder / "cluster", more="cluster-enabled yes\n")
    authority, other = Authority(folder / "tls", "authority"), Authority(folder / "tls", "other")
    certificate = authority.certificate("server")
    async with AsyncExitStack() as stack:
        for server in (plain, cluster):
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
        sentinel = LabSentinel(folder / "sentinel", plain, quorum=1)
        await asyncio.to_thread(sentinel.start)
        stack.callback(sentinel.stop)
        contexts = (
            server_context(certificate),
            server_context(authority.certificate("elsewhere", address="192.0.2.1")),
            server_context(certificate, clients=authority),
        )
        tls, elsewhere, for_clients = [
            (await stack.enter_async_context(Forwarder(plain.port or 0, tls=context))).port for context in contexts
        ]
        refusing = stack.enter_context(refusing_port(contexts[-1]))
        talkers = {}
        for name, said in TALKERS.items():
            talker = await stack.enter_async_context(await _talker(said))
            talkers[name] = talker.sockets[0].getsockname()[1]
        async with plain.admin as redis:
            await redis.execute_command(f"ACL SETUSER {minimal_acl()}")  # type: ignore[no-untyped-call]
            for name, rules in ACLS.items():
                await redis.execute_command(f"ACL SETUSER {name} on >{USERS_PASSWORD} {rules}")  # type: ignore[no-untyped-call]
        yield Lab(
            plain,
            cluster,
            sentinel,
            authority,
            other,
            tls,
            elsewhere,
            for_clients,
            refusing,
            talkers,
            authority.certificate("client"),
        )


#: Users who lack something.
ACLS = {
    "few": f"~{NAMESPACE}:* &{NAMESPACE}:* +@all -xadd -subscribe",
    "keys": f"~another:* &{NAMESPACE}:* +@all",
    "channels": f"~{NAMESPACE}:* resetchannels +@all",
    "none": "resetkeys -@all",
}


def as_user(lab: Lab, user: str) -> str:
    return f"redis://{user}:{USERS_PASSWORD}@127.0.0.1:{lab.plain.port}"


def talking(name: str) -> Callable[[Lab], str]:
    return lambda lab: f"redis://127.0.0.1:{lab.talkers[name]}"


RIGHT: dict[str, Callable[[Lab], str]] = {
    "plain, with a password of special characters": lambda lab: lab.plain.url,
    "another database": lambda lab: f"{lab.plain.url[:-1]}7",
    "the minimal ACL": lambda lab: as_user(lab, USER),
    "a private authority": lambda lab: lab.url(lab.tls, more=f"ssl_ca_certs={lab.authority.file}"),
    "no verification": lambda lab: lab.url(lab.tls, more="ssl_cert_reqs=none"),
    "a certificate of another name": lambda lab: lab.url(
        lab.tls_of_another_address, more=f"ssl_ca_certs={lab.authority.file}&ssl_check_hostname=false"
    ),
    "a client's certificate": lambda lab: lab.url(
        lab.tls_for_clients, more=f"ssl_ca_certs={lab.authority.file}&ssl_certfile={lab.client_certificate}"
    ),
    "a Sentinel": lambda lab: (
        f"{lab.plain.url_at(lab.sentinel.port or 0, scheme='redis+sentinel')[:-1]}{SERVICE}"
        f"?sentinel_password={SENTINEL_PASSWORD}"
    ),
}


@pytest.mark.parametrize("name", RIGHT)
async def test_all_that_uses_redis_works(lab: Lab, name: str) -> None:
    url = RIGHT[name](lab)
    async with Product(url, namespace=NAMESPACE).running() as product:
        await product.redis.verify()
        await product.works()
    if name == "the minimal ACL":
        async with lab.plain.admin as redis:
            denied = await redis.acl_log()
        assert [entry for entry in denied if entry["username"] in (USER, USER.encode())] == []


async def test_a_socket(data_dir: Path) -> None:
    folder = data_dir / "s"
    server = LabValkey(folder, more="unixsocket ./v.sock\n")
    await asyncio.to_thread(server.start)
    try:
        account = server.url.split("//")[1].split("@")[0]
        async with Product(f"unix://{account}@{folder / 'v.sock'}?db=3").running() as product:
            await product.redis.verify()
            await product.works()
    finally:
        server.stop()


#: By what is wrong: the URL, what is said, and whether waiting might help.
WRONG: dict[str, tuple[Callable[[Lab], str], str, bool]] = {
    "no password": (lambda lab: f"redis://127.0.0.1:{lab.plain.port}", "it asks for a password", False),
    "wrong password": (lambda lab: f"redis://:hunter2@127.0.0.1:{lab.plain.port}", "the password is wrong", False),
    "unknown user": (lambda lab: f"redis://bob:hunter2@127.0.0.1:{lab.plain.port}", "the password is wrong", False),
    "unknown database": (lambda lab: f"{lab.plain.url[:-1]}99", "no database of that number", False),
    "commands": (lambda lab: as_user(lab, "few"), "no permission for the commands xadd, subscribe", False),
    "keys": (lambda lab: as_user(lab, "keys"), "no permission for the keys of REDIS_NAMESPACE", False),
    "channels": (lambda lab: as_user(lab, "channels"), "no permission for the channels of REDIS_NAMESPACE", False),
    "nothing permitted": (lambda lab: as_user(lab, "none"), "no permission for the command eval", False),
    "wrong authority": (
        lambda lab: lab.url(lab.tls, more=f"ssl_ca_certs={lab.other.file}"),
        "its certificate is not accepted: unable to get local issuer certificate",
        False,
    ),
    "the system's authorities": (lambda lab: lab.url(lab.tls), "its certificate is not accepted", False),
    "a certificate of another name": (
        lambda lab: lab.url(lab.tls_of_another_address, more=f"ssl_ca_certs={lab.authority.file}"),
        "its certificate is not accepted: IP address mismatch",
        False,
    ),
    "no client's certificate": (
        lambda lab: lab.url(lab.refusing, more=f"ssl_ca_certs={lab.authority.file}"),
        "it asks for a client's certificate",
        False,
    ),
    "TLS to a plain port": (lambda lab: lab.url(lab.plain.port or 0), "it does not speak TLS there", False),
    "plain to a TLS port": (lambda lab: lab.url(lab.tls, scheme="redis"), "it speaks TLS there: write rediss", False),
    "a Cluster": (lambda lab: lab.cluster.url, "it is a Cluster, which this product cannot use", False),
    "a Cluster behind a proxy": (talking("moved"), "it is a Cluster, which this product cannot use", False),
    "a Sentinel": (
        lambda lab: f"redis://:{SENTINEL_PASSWORD}@127.0.0.1:{lab.sentinel.port}",
        "it is a Sentinel: write redis+sentinel://",
        False,
    ),
    "a Sentinel's password": (
        lambda lab: f"redis+sentinel://127.0.0.1:{lab.sentinel.port}/{SERVICE}?sentinel_password=hunter2",
        "the Sentinels: the user or the password is wrong",
        False,
    ),
    "a Sentinel's service": (
        lambda lab: f"redis+sentinel://127.0.0.1:{lab.sentinel.port}/nothing?sentinel_password={SENTINEL_PASSWORD}",
        "the Sentinels: the Sentinels do not know a service of that name",
        False,
    ),
    "no Sentinel": (
        lambda lab: f"redis+sentinel://127.0.0.1:{lab.talkers['old']}/{SERVICE}",
        "what answers there is not a Sentinel",
        False,
    ),
    "an old server": (talking("old"), "it is Redis 6.0.16; 6.2 or newer is needed", False),
    "a web server": (talking("web"), "does not speak the protocol of Redis", False),
    "protected mode": (talking("protected"), "it is in protected mode", False),
    "an unknown host": (lambda _: "redis://no-such-host.invalid", "the host is not known", True),
    "a closed port": (lambda _: f"redis://127.0.0.1:{free_port()}", "nothing listens there", True),
    "no such socket": (lambda _: "unix:///no/such.sock", "there is no such socket", True),
    "closed Sentinels": (
        lambda _: f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}",
        "the Sentinels: nothing listens there",
        True,
    ),
    "silence": (talking("silent"), "it does not answer in time", True),
    "loading": (talking("loading"), "it loads its data", True),
    "no connection left": (talking("clients"), "it has no connection left (maxclients)", True),
    "a replica without its primary": (talking("masterdown"), "it is a replica, which takes no writes", True),
    "a disk that is full": (talking("misconf"), "it refuses writes because it cannot save", True),
    "an error in a script of Redis 6": (talking("script of Redis 6"), "its memory is full (maxmemory)", True),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_said_and_no_secret(lab: Lab, name: str) -> None:
    make_url, says, is_outage = WRONG[name]
    redis = RedisConnection(make_url(lab), command_seconds=1)
    with capture_logs() as logs, pytest.raises(RedisUnavailable) as caught:
        await redis.verify()
    await redis.close()
    assert says in caught.value.cause
    assert caught.value.cause.startswith(f"REDIS_URL, {redis._url.place}: ")  # noqa: SLF001
    assert isinstance(caught.value, RedisMisconfigured) is not is_outage
    for secret in ("hunter2", PASSWORD, SENTINEL_PASSWORD, USERS_PASSWORD):
        assert secret not in f"{caught.value.cause}{caught.value.detail}{logs}"


@pytest.mark.parametrize("name", ["wrong password", "nothing permitted", "a Cluster", "wrong authority"])
async def test_the_log_says_it_too(lab: Lab, name: str) -> None:
    """Of each use, since a password may change and a permission be withdrawn while we run."""
    make_url, says, _ = WRONG[name]
    wanted = {"redis_unavailable", "job_queue_lost", "notify_failed", "reply_stream_lost"}
    with capture_logs() as logs:
        async with Product(make_url(lab), namespace=NAMESPACE).running() as product:
            with suppress(RedisUnavailable):
                await product.redis.check()
            await product.queue.notify([MessageId(uuid4())])
            writer = product.writing.write(MessageId(uuid4()), 1)
            writer.add("Hello.")
            await until_true(lambda: done({line["event"] for line in logs} >= wanted))
    causes = {line["event"]: line["cause"] for line in logs if line["event"] in wanted}
    said = says.replace("eval", "")
    assert [event for event, cause in causes.items() if said not in cause] == []


@pytest.mark.parametrize("command", ["serve", "worker", "check"])
@pytest.mark.parametrize("name", ["wrong password", "a Cluster"])
def test_a_mistake_is_refused_at_start(lab: Lab, environment: dict[str, str], command: str, name: str) -> None:
    make_url, says, _ = WRONG[name]
    ended = subprocess.run(
        [sys.executable, "-m", "entrypoints.cli", command],
        env={"PATH": os.environ["PATH"], **environment, "REDIS_URL": make_url(lab), "PORT": "0"},
        cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_HANG, check=False,
    )  # fmt: skip
    assert ended.returncode in (1, 2)
    assert says in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr


@pytest.fixture
def server(data_dir: Path) -> Iterator[LabValkey]:
    server = LabValkey(data_dir / f"ready-{secrets.token_hex(4)}")
    server.start()
    yield server
    server.kill()


async def _full(server: LabValkey) -> None:
    await server.set(maxmemory=1)


async def _read_only(server: LabValkey) -> None:
    async with server.admin as redis:
        await redis.replicaof("127.0.0.1", str(free_port()))


async def _without_replicas(server: LabValkey) -> None:
    await server.set(min_replicas_to_write=1)


async def _dead(server: LabValkey) -> None:
    await asyncio.to_thread(server.kill)


async def _hanging(server: LabValkey) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (_full, "away (full)"),
        (_read_only, "away (read-only)"),
        (_without_replicas, "away (read-only)"),
        (_dead, "away"),
        (_hanging, "away"),
    ],
)
async def test_ready_says_what_is_wrong(
    container: Container, server: LabValkey, trouble: Callable[[LabValkey], Awaitable[None]], state: str
) -> None:
    redis = RedisConnection(server.url, command_seconds=1)
    check = CheckReadiness([container.postgres(), redis], container.model_setup(), Shutdown())
    assert await check() == {"postgres": "ok", "redis": "ok"}
    await trouble(server)
    assert await check() == {"postgres": "ok", "redis": state}
    await redis.close()


async def test_ready_sees_a_cluster(container: Container, lab: Lab) -> None:
    redis = RedisConnection(lab.cluster.url, command_seconds=1)
    check = CheckReadiness([container.postgres(), redis], container.model_setup(), Shutdown())
    assert await check() == {"postgres": "ok", "redis": "away (cluster)"}
    await redis.close()


async def test_the_tests_leave_nothing_behind(lab: Lab) -> None:
    redis = RedisConnection(lab.plain.url, command_seconds=1, namespace="left-behind")
    await redis.verify()
    await redis.check()
    await redis.close()
    async with lab.plain.admin as admin:
        keys = await admin.keys("left-behind:*")
        assert keys
        assert all([0 < await admin.pttl(key) <= 10_000 for key in keys])
