"""DATABASE_URL in the forms that hosts of Postgres hand out, and in forms that are refused."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args as parsed_by_driver

from adapters.postgres.dsn import Dsn, DsnError, read

SECRET = "hunter2"
UNSET = dict.fromkeys(
    ("host", "port", "user", "password", "passfile", "database", "service", "servicefile", "direct_tls",
     "server_settings", "target_session_attrs", "krbsrvname", "gsslib", "ssl")
)  # fmt: skip


def addresses(dsn: Dsn) -> list[object]:
    return list(parsed_by_driver(dsn=dsn.url, **{**UNSET, **dsn.arguments})[0])


def parameters(dsn: Dsn) -> object:
    return parsed_by_driver(dsn=dsn.url, **{**UNSET, **dsn.arguments})[1]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgres://me:hunter2@db/name", [("db", 5432)]),
        ("postgresql://me:hunter2@db:6543/name", [("db", 6543)]),
        ("postgres://me@[2001:db8::1]:5433/name", [("2001:db8::1", 5433)]),
        ("postgres://me@a:5432,b:5433/name", [("a", 5432), ("b", 5433)]),
        ("postgres:///name?host=/var/run/postgresql", ["/var/run/postgresql/.s.PGSQL.5432"]),
        ("postgres://me@%2Frun%2Fpg/name", ["/run/pg/.s.PGSQL.5432"]),
        ("postgres://me@/name?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgres://db/name", [("db", 5432)]),
    ],
)
def test_where(url: str, found: list[object]) -> None:
    assert addresses(read(url)) == found


def test_names_and_passwords_are_decoded() -> None:
    found = parameters(read("postgres://m%40e:hunt%2Fer%232@db/na%20me%2Fx"))
    assert (found.user, found.password, found.database) == ("m@e", "hunt/er#2", "na me/x")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("postgres://a,b/x", "read-write"),
        ("postgres://a,b/x?target_session_attrs=any", "any"),
        ("postgres://a/x", "any"),
    ],
)
def test_of_several_hosts_one_that_accepts_writes(url: str, attributes: str) -> None:
    assert parameters(read(url)).target_session_attrs == attributes  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    [
        # Neon, Supabase, Vercel, Heroku, Prisma, Rails, DigitalOcean, Azure
        "postgresql://me:hunter2@ep-cool-123.neon.tech/db?sslmode=require&channel_binding=require",
        "postgresql://me:hunter2@ep.neon.tech/db?sslmode=require&options=endpoint%3Dep-cool-123",
        "postgresql://me.ref:hunter2@aws-0.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
        "postgres://me:hunter2@aws-0.pooler.supabase.com:6543/postgres?sslmode=require&supa=base-pooler.x",
        "postgres://me:hunter2@ec2.compute.amazonaws.com:5432/db?sslmode=no-verify",
        "postgresql://me:hunter2@db/db?schema=public&pool_timeout=10&sslaccept=strict",
        "postgres://me:hunter2@db/db?prepared_statements=false",
        "postgresql://doadmin:hunter2@db.ondigitalocean.com:25060/defaultdb?sslmode=require",
        "postgres://me%40server:hunter2@server.postgres.database.azure.com/db?ssl=true",
        "postgres://me:hunter2@db/db?application_name=chat&connect_timeout=5&gssencmode=disable&keepalives=1",
    ],
)
def test_what_hosts_hand_out_is_taken(url: str) -> None:
    addresses(read(url))


def test_what_the_parameters_do() -> None:
    assert read("postgres://db/x?pgbouncer=true&connection_limit=7").pooled
    assert read("postgres://db/x?pgbouncer=true&connection_limit=7").pool == 7
    assert read("postgres://db/x?statement_cache_size=0").pooled
    assert read("postgres://db/x?pgbouncer=false").pooled is None
    assert read("postgres://db/x?connect_timeout=3").connect_seconds == 3
    assert read("postgres://db/x?application_name=chat&options=-c%20a%3Db").settings == {
        "application_name": "chat",
        "options": "-c a=b",
    }


@pytest.mark.parametrize(
    ("query", "verified", "by_name"),
    [
        ("sslmode=require", False, False),
        ("sslmode=no-verify", False, False),
        ("sslmode=verify-full", True, True),
        ("sslmode=verify-ca", True, False),
        ("sslrootcert=system", True, True),
        ("sslmode=require&channel_binding=require", True, True),
        ("sslaccept=strict", True, True),
    ],
)
def test_how_far_a_certificate_is_verified(query: str, verified: bool, by_name: bool) -> None:
    """By the system's authorities, unless sslrootcert names one."""
    context = parameters(read(f"postgres://db/x?{query}")).ssl  # type: ignore[attr-defined]
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verified, by_name)


def test_what_is_shown_of_it_is_the_host() -> None:
    assert read("postgres://me:hunter2@a:1,b:2/x").hosts == "a:1,b:2"
    assert read("postgres:///x?host=/run/pg").hosts == "/run/pg"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:hunter2@db/x", "must be a URL that starts with postgres://"),
        ("postgres:/me:hunter2@db/x", "must be a URL"),
        ("host=db password=hunter2", "must be a URL"),
        ("postgres://", "must be a URL"),
        ("postgres://me:hunter2@db:port/x", "must be a URL"),
        ("postgres://me:hunter2@db:99999999/x", "must be a URL"),
        ("postgres://me:hunter2@[db/x", "must be a URL"),
        ("postgres://me:hunt@er2@db/x", "write @ as %40"),
        ("postgres://me:hunter2#3@db/x", "write @ as %40"),
        ("postgres://me:hunter2/3@db/x", "write @ as %40"),
        ("postgres://me:hunter2@db/x?sslmod=require", "has the parameter sslmod, which is not known here"),
        ("postgres://me:hunter2@db/x?statement_timeout=5", "has the parameter statement_timeout"),
        ("postgres://me:hunter2@db/x?schema=hunter2", "has a value of the parameter schema"),
        ("postgres://me:hunter2@db/x?channel_binding=hunter2", "has a value of the parameter channel_binding"),
        ("postgres://me:hunter2@db/x?connection_limit=hunter2", "has a value of the parameter connection_limit"),
        ("postgres://me:hunter2@db/x?load_balance_hosts=random", "has a value of the parameter load_balance_hosts"),
        ("postgres://me:hunter2@db/x?sslmode=hunter2", "has a wrong sslmode: it must be disable, allow,"),
        ("postgres://me:hunter2@db/x?target_session_attrs=hunter2", "has a wrong target_session_attrs: it must be any"),
        (
            "postgres://me:hunter2@db/x?sslmode=verify-ca&sslrootcert=/nowhere",
            "sslrootcert=/nowhere, a file that cannot",
        ),
        ("postgres://me:hunter2@db/x?sslcert=/nowhere", "has sslcert=/nowhere, a file that cannot be read"),
        ("postgres://me:hunter2@db/x?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgres://me:hunter2@db/x?ssl", "has parameters that are not of the form"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is(url: str, words: str) -> None:
    with pytest.raises(DsnError) as caught:
        read(url)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    with pytest.raises(DsnError, match="not in PEM form"):
        read(f"postgres://db/x?sslmode=verify-full&sslrootcert={file}")
    with pytest.raises(DsnError, match="PEM form"):
        read(f"postgres://db/x?sslmode=verify-full&sslcert={file}&sslkey={file}")
