"""What an error of Postgres means: an outage, a permanent mistake of the deployment, or a defect (neither).

By SQLSTATE, since asyncpg's classes follow the codes, and its texts may quote values.
"""

from __future__ import annotations

import socket
import ssl

import asyncpg
from tortoise.exceptions import DBConnectionError, OperationalError, TransactionManagementError

from domain.errors import DatabaseUnavailable

#: Tortoise's, around asyncpg's.
WRAPPED = (OperationalError, TransactionManagementError)

_OUTAGES = (
    OSError,  # refused, reset, no such host, and TimeoutError
    asyncpg.InternalClientError,  # the connection was lost between two packets of a statement
    asyncpg.InterfaceError,  # the pool is closing, the connection is closed
    DBConnectionError,
)
#: Classes and codes after which the same statement may succeed later.
_OUTAGE_CODES = (
    "08",  # the connection
    "0A000",  # a cached plan that a migration made invalid: asyncpg makes it again
    "25006",  # a primary that was demoted
    "25P03", "25P04",  # a transaction was idle or open for too long
    "40",  # a deadlock or a conflict
    "53",  # too many connections, disk full, out of memory
    "55006", "55P03", "55P04",  # an object in use, a lock that is not available
    "57",  # shutting down, starting up, statement timed out
    "58",  # an error of the operating system, such as a disk's
    "XX",  # an internal error, such as a damaged page
)  # fmt: skip
#: Sentences that clients may read, too: without hosts and names.
_PERMANENT = {
    "28": "The database refused the user or the password.",
    "3D000": "The database does not exist.",
    "3F000": "The database has no schema for the tables: create one, or correct the role's search_path.",
    "42501": "The database does not grant its user the privileges that are needed.",
    "42P01": "The database is not migrated. Run: gemini-backend migrate",
    "26000": "A pooler between here and the database loses prepared statements: set DATABASE_POOLER=on.",
    "42P05": "A pooler between here and the database mixes prepared statements up: set DATABASE_POOLER=on.",
}
_UNKNOWN_SETTING = "A setting in the database's URL is not known to the server, or has a value that it does not take."
_NOT_POSTGRES = "What answers there does not speak Postgres's protocol: is that Postgres?"
_NOT_TRUSTED = "The database's certificate is not accepted."
_TLS_FAILED = "TLS with the database failed."
_TLS_REFUSED = "The database's server does not speak TLS, which sslmode demands."
_TLS_DEMANDED = "The database demands TLS, or does not let this address in (pg_hba.conf)."
_STARTUP_REFUSED = "A pooler in front of the database takes no startup parameters: set DATABASE_POOLER=on."


class SettingRefused(Exception):
    """The server takes no connection with what the URL sets."""


def translated(error: BaseException, hosts: str) -> DatabaseUnavailable | None:
    """The error as DatabaseUnavailable, with its cause for operators; None if it is a defect."""
    cause: object = error.args[0] if isinstance(error, WRAPPED) and error.args else error
    if isinstance(error, DBConnectionError) and error.__cause__:
        cause = error.__cause__
    detail = _permanent(cause)
    if detail is None and not _is_outage(cause):
        return None
    words = f"{detail} {_more(cause)}".strip() if detail else _outage(cause)
    return DatabaseUnavailable(detail, cause=f"{hosts}: {words}" if hosts else words)


def _permanent(error: object) -> str | None:
    match error:
        case ssl.SSLError():
            return _NOT_TRUSTED if isinstance(error, ssl.SSLCertVerificationError) else _TLS_FAILED
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return _TLS_REFUSED
        case SettingRefused():
            return _UNKNOWN_SETTING
        case asyncpg.ProtocolError() | asyncpg.UnsupportedServerFeatureError():
            return _NOT_POSTGRES
        case PermissionError():
            return "The database's socket may not be opened by this user."
        case asyncpg.ProtocolViolationError() if "startup parameter" in str(error):
            return _STARTUP_REFUSED
        case asyncpg.ProtocolViolationError() if "no such database" in str(error):  # PgBouncer's
            return _PERMANENT["3D000"]
        case asyncpg.InvalidAuthorizationSpecificationError() if "pg_hba.conf" in str(error):
            return _TLS_DEMANDED
        case asyncpg.PostgresError():
            return next((text for code, text in _PERMANENT.items() if (error.sqlstate or "").startswith(code)), None)
    return None


def _more(error: object) -> str:
    """For operators alone: it may name hosts."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"{error.verify_message.rstrip('.')}. sslrootcert names the authorities that are trusted."
        case ssl.SSLError():
            return f"{error.reason or 'No reason was given'}."
    return ""


def _is_outage(error: object) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_OUTAGE_CODES)
    return isinstance(error, _OUTAGES)


def _outage(error: object) -> str:
    match error:
        case socket.gaierror():
            return "the host's name is not known."
        case TimeoutError():
            return "no answer in time."
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)."
        case FileNotFoundError():
            return "the socket does not exist."
        case asyncpg.TargetServerAttributeNotMatched():
            return "no host is as target_session_attrs demands: read-write where there are several."
        case asyncpg.ReadOnlySQLTransactionError():
            return "the database accepts no writes: it is a standby, or set read-only."
        case asyncpg.ConnectionDoesNotExistError() | ConnectionError(errno=None):
            return "the server closed the connection."
        case asyncpg.PostgresError():
            return f"{type(error).__name__} (SQLSTATE {error.sqlstate})."
        case OSError() if error.strerror:
            return f"{error.strerror}."
    return f"{type(error).__name__}."


def is_read_only(error: BaseException) -> bool:
    """Whether the connection's server does not accept writes any more."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
            return True
        cause = cause.__cause__
    return False
