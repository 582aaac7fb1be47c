"""REDIS_URL in all its forms, read once and checked before anything connects.

redis://user:password@host:6379/0          rediss:// for TLS
unix://user:password@/path/to/socket?db=0
redis+sentinel://user:password@host:26379,host:26379/service?db=0      rediss+sentinel:// for TLS
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote

FORMS = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
# Not urlsplit, which refuses several hosts with brackets.
_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?", re.DOTALL)
_ENCODE = "what a password has of / ? # @ must be percent-encoded"
_PORT, _SENTINEL_PORT = 6379, 26379
_CERTIFICATE_CHECKS = {"required": True, "cert_required": True, "none": False, "cert_none": False}
_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """File names, and what is verified. An empty `ca_file` means the system's authorities."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    verifies: bool = True
    checks_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises OSError, which SSLError is, if a file cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        context.check_hostname = self.verifies and self.checks_hostname
        context.verify_mode = ssl.CERT_REQUIRED if self.verifies else ssl.CERT_NONE
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file or None)
        return context


Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisUrl:
    addresses: tuple[Address, ...] = ()
    """Of the server; or of the Sentinels, if there is a `service`. Empty for a socket."""
    socket: str = ""
    service: str = ""
    database: int = 0
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    tls: Tls | None = None

    @property
    def place(self) -> str:
        """Where it points to, for people; without its secrets."""
        if self.socket:
            return self.socket
        places = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        return f"the service {self.service} of the Sentinels {places}" if self.service else places


@dataclass(frozen=True, slots=True)
class _Parts:
    hosts: str
    credentials: Credentials
    path: str


def parse_redis_url(text: str) -> RedisUrl:
    """Raises ValueError, whose sentence names the part that is wrong and never its value."""
    found = _URL.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"must be a URL that starts with {FORMS}; {_ENCODE}")
    scheme, authority, path, query = found.groups(default="")
    account, _, hosts = authority.rpartition("@")
    username, _, password = account.partition(":")
    parts = _Parts(hosts, Credentials(unquote(username), unquote(password)), unquote(path))
    match scheme:
        case "redis" | "rediss":
            url, known = _server(parts), _PARAMETERS
        case "redis+sentinel" | "rediss+sentinel":
            url, known = _sentinels(parts), _PARAMETERS | _SENTINEL_PARAMETERS
        case "unix":
            url, known = _socket(parts), _PARAMETERS
        case _:
            raise ValueError(f"must be a URL that starts with {FORMS}")
    if scheme.startswith("rediss"):
        url, known = replace(url, tls=Tls()), known | _TLS_PARAMETERS
    return _with_parameters(url, query, known)


def _server(parts: _Parts) -> RedisUrl:
    addresses = _addresses(parts.hosts, _PORT)
    if len(addresses) > 1:
        raise ValueError("names several hosts: only redis+sentinel:// can have more than one")
    return RedisUrl(addresses, database=_database_in(parts.path.strip("/")), credentials=parts.credentials)


def _sentinels(parts: _Parts) -> RedisUrl:
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("must name the service that the Sentinels watch: redis+sentinel://host:26379/service")
    return RedisUrl(
        _addresses(parts.hosts, _SENTINEL_PORT),
        service=service,
        database=_database_in(database),
        credentials=parts.credentials,
    )


def _socket(parts: _Parts) -> RedisUrl:
    if parts.hosts or not parts.path.strip("/"):
        raise ValueError("must name the socket by its whole path: unix:///path/to/socket")
    return RedisUrl(socket=parts.path, credentials=parts.credentials)


def _addresses(hosts: str, default_port: int) -> tuple[Address, ...]:
    return tuple(_address(host, default_port) for host in hosts.split(","))


def _address(text: str, default_port: int) -> Address:
    """Of a host, or an IPv6 address in brackets, with or without a port."""
    found = re.fullmatch(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(f"must have a host, and a port that is a number; {_ENCODE}")
    port = int(found["port"] or default_port)
    if not 0 < port < 65_536:
        raise ValueError("must have a port from 1 to 65535")
    return found["ipv6"] or unquote(found["name"]), port


def _database_in(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("must have a number as its database, as in redis://host:6379/0")
    return int(text)


def _file(name: str, text: str) -> str:
    try:
        with Path(text).open("rb"):
            return text
    except OSError as error:
        raise ValueError(f"names a file with {name} that cannot be read: {error.strerror}") from None


def _choice(name: str, text: str, choices: Mapping[str, bool], words: str) -> bool:
    if (chosen := choices.get(text.lower())) is None:
        raise ValueError(f"must have {words} as {name}")
    return chosen


def _tls(url: RedisUrl, **changes: object) -> RedisUrl:
    return replace(url, tls=replace(url.tls or Tls(), **changes))  # type: ignore[arg-type]  # each of its field's type


_Parameter = Callable[[RedisUrl, str], RedisUrl]
_PARAMETERS: dict[str, _Parameter] = {
    "db": lambda url, text: replace(url, database=_database_in(text)),
    "username": lambda url, text: replace(url, credentials=replace(url.credentials, username=text)),
    "password": lambda url, text: replace(url, credentials=replace(url.credentials, password=text)),
}
_SENTINEL_PARAMETERS: dict[str, _Parameter] = {
    "sentinel_username": lambda url, text: replace(
        url, sentinel_credentials=replace(url.sentinel_credentials, username=text)
    ),
    "sentinel_password": lambda url, text: replace(
        url, sentinel_credentials=replace(url.sentinel_credentials, password=text)
    ),
}
#: By the names that redis-py and Celery have for them.
_TLS_PARAMETERS: dict[str, _Parameter] = {
    "ssl_ca_certs": lambda url, text: _tls(url, ca_file=_file("ssl_ca_certs", text)),
    "ssl_certfile": lambda url, text: _tls(url, certificate_file=_file("ssl_certfile", text)),
    "ssl_keyfile": lambda url, text: _tls(url, key_file=_file("ssl_keyfile", text)),
    "ssl_cert_reqs": lambda url, text: _tls(
        url, verifies=_choice("ssl_cert_reqs", text, _CERTIFICATE_CHECKS, "required or none")
    ),
    "ssl_check_hostname": lambda url, text: _tls(
        url, checks_hostname=_choice("ssl_check_hostname", text, _SWITCH, "true or false")
    ),
}


def _with_parameters(url: RedisUrl, query: str, known: Mapping[str, _Parameter]) -> RedisUrl:
    for name, text in parse_qsl(query, keep_blank_values=True):
        if (read := known.get(name)) is None:
            raise ValueError(
                f"has a parameter that is not supported here: {_shown(name)}; known are {', '.join(known)}"
            )
        url = read(url, text)
    if url.tls and url.tls.key_file and not url.tls.certificate_file:
        raise ValueError("has ssl_keyfile without ssl_certfile")
    return url


def _shown(name: str) -> str:
    """A parameter's name, unless it looks like something else that was pasted there."""
    return name if name.replace("_", "").isalnum() and len(name) <= 40 else "a name that is not shown"
