"""What an error of Redis means: an outage, which ends by itself, or a mistake in the deployment, which does not.

The sentences are for operators: they name places, commands and parameters, and nothing that is secret.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis import exceptions as redis

from adapters.redis_clients import Demoted, SentinelFailure
from adapters.redis_url import RedisUrl

_COMMAND = re.compile(r"run the '([\w|]{1,40})' command")
_ACL = "docs/redis.md lists what the product needs"


@dataclass(frozen=True, slots=True)
class Cause:
    words: str
    state: str = ""
    """Short, for /ready; empty if it just does not answer."""
    is_permanent: bool = False


_SILENT = Cause("it does not answer in time")
_CLUSTER = Cause(
    "it is a Cluster, which this product cannot use; name a server that is none, or Sentinels", "cluster", True
)
_SENTINEL = Cause("it is a Sentinel: write redis+sentinel://host:26379/service", "a Sentinel", True)
#: By the word with which a refusal begins.
_REFUSALS = {
    "OOM": Cause("its memory is full (maxmemory)", "full"),
    "MISCONF": Cause("it refuses writes because it cannot save to its disk", "read-only"),
    "NOREPLICAS": Cause("it refuses writes because it has too few replicas (min-replicas-to-write)", "read-only"),
    "BUSY": Cause("a script has kept it busy for too long", "busy"),
    "LOADING": Cause("it loads its data", "loading"),
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "NOAUTH": Cause("it asks for a password, and there is none in the URL", "password", True),
    "WRONGPASS": Cause("the user or the password is wrong", "password", True),
    "DENIED": Cause("it is in protected mode and lets nobody in from other machines", "protected mode", True),
}
#: By a part of the refusal's text.
_TEXTS = {
    "without any password": Cause("the URL has a password, and the server has none for this user", "password", True),
    "no password is set": Cause("the URL has a password, and the server has none for this user", "password", True),
    "invalid password": _REFUSALS["WRONGPASS"],
    "DB index is out of range": Cause("it has no database of that number", "database", True),
    "invalid DB index": Cause("it has no database of that number", "database", True),
    "is not allowed in cluster mode": _CLUSTER,
    "max number of clients": Cause("it has no connection left (maxclients)", "too many connections"),
    "No such master": Cause("the Sentinels do not know a service of that name", "unknown service", True),
    "is not a Sentinel": Cause("what answers there is not a Sentinel", "not a Sentinel", True),
    "protected mode": _REFUSALS["DENIED"],
}


def cause_of(error: BaseException) -> Cause:
    chain = list(_chain(error))
    cause = next((found for link in chain if (found := _cause(link))), None)
    if cause and any(isinstance(link, SentinelFailure) for link in chain):
        return Cause(f"the Sentinels: {cause.words}", cause.state, cause.is_permanent)
    return cause or Cause(f"it fails ({type(error).__name__})")


def cause_of_all(errors: Sequence[BaseException]) -> Cause | None:
    """The first cause; but all commands that are not permitted at once."""
    commands = {found[1]: None for error in errors if (found := _COMMAND.search(str(error)))}
    if len(commands) > 1:
        return Cause(f"the user has no permission for the commands {', '.join(commands)}; {_ACL}", "permission", True)
    return cause_of(errors[0]) if errors else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        yield error
        error = error.__cause__ or error.__context__


def _cause(error: BaseException) -> Cause | None:
    match error:
        case ssl.SSLError():
            return _tls(error)
        case socket.gaierror():
            return Cause("the host is not known")
        case ConnectionRefusedError():
            return Cause("nothing listens there")
        case OSError() if "Connect call failed" in str(error):  # to each of the host's addresses
            return Cause("nothing listens there")
        case PermissionError():
            return Cause("this user may not open the socket", "socket", True)
        case FileNotFoundError():
            return Cause("there is no such socket or file")
        case Demoted():
            return Cause("it is a replica, which takes no writes", "read-only")
        case redis.NoPermissionError():
            return Cause(_permission(str(error)), "permission", True)
        case redis.InvalidResponse():
            return Cause("what answers there does not speak the protocol of Redis", "protocol", True)
        case redis.RedisError():
            return _refusal(error)
        case TimeoutError():
            return _SILENT
    return None


def _tls(error: ssl.SSLError) -> Cause:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return Cause(f"its certificate is not accepted: {why}; ssl_ca_certs names its authority", "certificate", True)
    reason = (error.reason or "").replace("_", " ").lower()
    if "wrong version" in reason or "record layer" in reason:
        return Cause("it does not speak TLS there: write redis://", "TLS", True)
    if "certificate required" in reason or "handshake failure" in reason or "bad certificate" in reason:
        return Cause("it asks for a client's certificate: ssl_certfile and ssl_keyfile", "certificate", True)
    return Cause(f"TLS with it failed: {reason or 'no reason given'}", "TLS")


def _permission(text: str) -> str:
    if command := _COMMAND.search(text):
        return f"the user has no permission for the command {command[1]}; {_ACL}"
    what = "channels" if "channel" in text else "keys"
    return f"the user has no permission for the {what} of REDIS_NAMESPACE; {_ACL}"


def _refusal(error: redis.RedisError) -> Cause | None:
    if isinstance(error, redis.BusyLoadingError):
        return _REFUSALS["LOADING"]
    text = str(error)
    code = error.status_code or text.partition(" ")[0]
    if "ACL failure in script" in text:
        return Cause(_permission(text), "permission", True)
    if found := _REFUSALS.get(code) or next((cause for part, cause in _TEXTS.items() if part in text), None):
        return found
    if command := re.search(r"unknown command '?`?(\w{1,40})", text):
        return Cause(f"it does not know the command {command[1]}: it is too old, or hides it", "command", True)
    if isinstance(error, redis.AuthenticationError):
        return _REFUSALS["NOAUTH" if "required" in text else "WRONGPASS"]
    return _SILENT if isinstance(error, redis.TimeoutError) else None


def cause_of_greeting(fields: dict[bytes, object]) -> Cause | None:
    """What is wrong with a server by its own account, which is the reply to HELLO."""
    mode, version = fields.get(b"mode"), fields.get(b"version")
    if mode == b"cluster":
        return _CLUSTER
    if mode == b"sentinel":
        return _SENTINEL
    if fields.get(b"server") == b"redis" and isinstance(version, bytes):
        numbers = tuple(int(part) for part in version.decode(errors="replace").split(".")[:2] if part.isdecimal())
        if numbers and numbers < (6, 2):
            return Cause(f"it is Redis {version.decode(errors='replace')}; 6.2 or newer is needed", "too old", True)
    return None


async def looked_at(url: RedisUrl, cause: Cause, *, seconds: float) -> Cause:
    """The cause, or a better one: whether a server speaks TLS shows only when it is tried the other way."""
    if cause.is_permanent and cause.state != "protocol":
        return cause
    if url.socket or url.service or cause.words == _REFUSALS["LOADING"].words or cause.state == "read-only":
        return cause
    host, port = url.addresses[0]
    with suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(seconds):
            if url.tls and await _answers_plainly(host, port):
                return Cause("it does not speak TLS there: write redis://", "TLS", True)
            if not url.tls and await _answers_by_tls(host, port):
                return Cause("it speaks TLS there: write rediss://", "TLS", True)
    return cause


async def _answers_plainly(host: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"PING\r\n")
        return (await reader.read(1)) in (b"+", b"-")
    finally:
        writer.close()


async def _answers_by_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.close()
    return True
