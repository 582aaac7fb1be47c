"""DATABASE_URL, as libpq and asyncpg read it, with what hosts of Postgres add to it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

import asyncpg
from asyncpg.connect_utils import _parse_connect_dsn_and_args as parsed_by_driver

SCHEMES = ("postgres", "postgresql")

#: What asyncpg takes out of a URL. The rest it would send to the server as a setting.
_OF_THE_DRIVER = {
    "host", "port", "dbname", "database", "user", "password", "passfile", "service", "target_session_attrs",
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib",
}  # fmt: skip
#: Startup parameters of the server itself.
_OF_THE_SERVER = {"application_name", "options"}
#: Without effect here, and without harm.
_IGNORED = {
    "supa", "workaround", "uselibpqcompat", "pool_timeout", "fallback_application_name", "keepalives",
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslsni",
}  # fmt: skip
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_SYSTEM_CERTIFICATES = "system"  # as libpq calls them


class DsnError(ValueError):
    """The rest of a sentence that begins with the variable's name. It holds no value that may be secret."""


@dataclass(frozen=True, kw_only=True)
class Dsn:
    """A database's address. `url` and `arguments` are what asyncpg takes."""

    url: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: Startup parameters that the URL asks for.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Host, or folder of a socket, and port of each that the URL names.
    addresses: tuple[tuple[str, int], ...] = ()
    #: For people: hosts and ports, without user and password.
    hosts: str
    #: Behind a pooler that does not keep sessions; None if the URL does not say.
    pooled: bool | None = None
    pool: int | None = None
    connect_seconds: float | None = None


def read(text: str) -> Dsn:
    """Raises DsnError."""
    parts = _parts(text)
    query = _query(parts)
    given = _Given(query)
    for name in list(query):
        if take := _TAKEN.get(name):
            _take(take, given, name, query.pop(name))
        elif name in _IGNORED:
            del query[name]
        elif name not in _OF_THE_DRIVER | _OF_THE_SERVER:
            raise DsnError(
                f"has the parameter {name}, which is not known here. A setting of the server is given as"
                f" options=-c%20name%3Dvalue"
            )
    settings = {name: query.pop(name) for name in _OF_THE_SERVER if name in query}
    for name in _FILES:
        _readable(name, query.get(name))
    has_several = "," in parts.netloc or "," in query.get("host", "")
    if has_several:
        query.setdefault("target_session_attrs", "read-write")  # every process writes
    arguments = _arguments(query)
    url = _url(parts, query)
    addresses = _check(url, arguments)
    return Dsn(
        url=url,
        addresses=addresses if has_several else (),
        arguments=arguments,
        settings=settings,
        hosts=_hosts(parts, query),
        pooled=given.pooled,
        pool=given.pool,
        connect_seconds=given.connect_seconds,
    )


class _Given:
    """What is taken out of the query, by the parameter's name."""

    def __init__(self, query: dict[str, str]) -> None:
        self.query = query
        self.pooled: bool | None = None
        self.pool: int | None = None
        self.connect_seconds: float | None = None

    def set_pool(self, value: str) -> None:
        self.pool = max(1, int(value))

    def set_connect_seconds(self, value: str) -> None:
        self.connect_seconds = float(value) or None

    def bind_channel(self, value: str) -> None:
        """The driver cannot bind the channel. What this protects from, somebody in between, a certificate does too."""
        if {"disable": False, "prefer": False, "require": True}[value]:
            self.query["sslmode"] = "verify-full"


def _one_of(values: Mapping[str, Any]) -> Callable[[_Given, str], None]:
    """Values that change nothing; others cannot be had."""

    def take(given: _Given, value: str) -> None:
        values[value.lower()]

    return take


def _pooled_by(on: str) -> Callable[[_Given, str], None]:
    def take(given: _Given, value: str) -> None:
        given.pooled = given.pooled or value.lower() == on or None

    return take


def _mode_by(modes: Mapping[str, str]) -> Callable[[_Given, str], None]:
    def take(given: _Given, value: str) -> None:
        given.query.setdefault("sslmode", modes[value])

    return take


_TAKEN: dict[str, Callable[[_Given, str], None]] = {
    "pgbouncer": _pooled_by("true"),
    "prepared_statements": _pooled_by("false"),
    "statement_cache_size": _pooled_by("0"),
    "connection_limit": _Given.set_pool,
    "connect_timeout": _Given.set_connect_seconds,
    "channel_binding": _Given.bind_channel,
    "ssl": _mode_by({"true": "require", "1": "require", "no-verify": "require", "false": "disable", "0": "disable"}),
    "sslaccept": _mode_by({"strict": "verify-full", "accept_invalid_certs": "require"}),
    "schema": _one_of({"public": None}),
    "currentSchema": _one_of({"public": None}),
    "client_encoding": _one_of({"utf8": None, "utf-8": None, "unicode": None, "auto": None}),
    "gssencmode": _one_of({"disable": None, "prefer": None}),
    "sslcompression": _one_of({"0": None}),
    "load_balance_hosts": _one_of({"disable": None}),
}


def _parts(text: str) -> SplitResult:
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise DsnError(_FORM) from None
    if parts.scheme not in SCHEMES or not text.strip().startswith(f"{parts.scheme}://"):
        raise DsnError(_FORM)
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment:
        raise DsnError(
            "has special characters in its user or password: write @ as %40, # as %23, / as %2F and ? as %3F"
        )
    if not (parts.netloc or parts.path.strip("/") or parts.query):
        raise DsnError(_FORM)
    return parts


_FORM = "must be a URL that starts with postgres:// or postgresql://, such as postgres://user:password@host:5432/name"


def _query(parts: SplitResult) -> dict[str, str]:
    try:
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise DsnError("has parameters that are not of the form name=value&name=value") from None
    if query.get("sslmode") == "no-verify":
        query["sslmode"] = "require"
    if query.get("sslrootcert"):
        query.setdefault("sslmode", "verify-full")
    return query


def _take(take: Callable[[_Given, str], None], given: _Given, name: str, value: str) -> None:
    try:
        take(given, value)
    except (LookupError, ValueError):
        raise DsnError(f"has a value of the parameter {name} that cannot be had here") from None


def _readable(name: str, path: str | None) -> None:
    if path is None or path == _SYSTEM_CERTIFICATES:
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise DsnError(f"has {name}={path}, a file that cannot be read: {error.strerror}") from None


def _arguments(query: dict[str, str]) -> dict[str, Any]:
    """asyncpg knows no system certificates: where these are meant, it gets a context that trusts them."""
    mode, root = query.get("sslmode"), query.get("sslrootcert")
    if root != _SYSTEM_CERTIFICATES and (root is not None or mode not in ("verify-ca", "verify-full")):
        return {}
    if root == _SYSTEM_CERTIFICATES and mode not in (None, "verify-full"):
        raise DsnError("has sslrootcert=system, which needs sslmode=verify-full")
    context = ssl.create_default_context()
    context.check_hostname = mode != "verify-ca"
    try:
        if query.get("sslcert"):
            context.load_cert_chain(query["sslcert"], query.get("sslkey"), lambda: query.get("sslpassword", ""))
    except (ssl.SSLError, OSError):
        raise DsnError("has sslcert and sslkey that are not a certificate and its key in PEM form") from None
    for name in ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"):
        query.pop(name, None)
    return {"ssl": context}


def _url(parts: SplitResult, query: Mapping[str, str]) -> str:
    """parse_qs, by which asyncpg reads it, drops empty values."""
    text = "&".join(f"{name}={quote(value, safe='/:,')}" for name, value in query.items() if value)
    return parts._replace(query=text).geturl() if parts.netloc else f"postgresql://{parts.path}{'?' * bool(text)}{text}"


def _check(url: str, arguments: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Its addresses, or the driver's verdict in our words: its own may quote the URL."""
    unset = dict.fromkeys(
        ("host", "port", "user", "password", "passfile", "database", "service", "servicefile", "direct_tls",
         "server_settings", "target_session_attrs", "krbsrvname", "gsslib", "ssl")
    )  # fmt: skip
    try:
        found, _ = parsed_by_driver(dsn=url, **{**unset, **arguments})
        addresses = tuple(_address(address) for address in found)
        if not all(0 < port < 65_536 for _, port in addresses):
            raise ValueError
        return addresses
    except ssl.SSLError:
        raise DsnError("has a certificate or a key that is not in PEM form, or that do not belong together") from None
    except asyncpg.ClientConfigurationError as error:
        raise DsnError(_driver_complaint(str(error))) from None
    except KeyError:  # the driver asks the system for the user's name, which a container's has not
        raise DsnError("must name the user, as in postgres://user:password@host:5432/name") from None
    except (ValueError, LookupError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        raise DsnError(_FORM) from None


def _address(address: str | tuple[str, int]) -> tuple[str, int]:
    """Of a socket, whose file has the port in its name, the folder."""
    if isinstance(address, tuple):
        return address
    return str(Path(address).parent), int(address.rpartition(".")[2])


def _driver_complaint(message: str) -> str:
    """Of its complaints only the name of the parameter is safe to repeat."""
    choices = {
        "sslmode": "disable, allow, prefer, require, verify-ca or verify-full",
        "target_session_attrs": "any, primary, standby, prefer-standby, read-write or read-only",
        "sslnegotiation": "postgres or direct",
        "TLS version": "TLSv1.2 or TLSv1.3",
        "root certificate": "",
    }
    for name, values in choices.items():
        if name in message:
            return f"has a wrong {name}: it must be {values}" if values else f"has no readable {name} file"
    return _FORM


def _hosts(parts: SplitResult, query: Mapping[str, str]) -> str:
    return parts.netloc.rpartition("@")[2] or query.get("host") or "the local socket"
