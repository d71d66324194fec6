"""What an error of PostgreSQL means, by its code (SQLSTATE): the texts of a server are in any language."""

from __future__ import annotations

import ctypes
import re
import select
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.jobs.refusals import server_corrupt, server_unavailable

LOGIN_STATES = ("28000", "28P01", "3D000")
"""PostgreSQL, appendix A: invalid authorization, invalid password, no such database."""
NO_PASSWORD = "no password"  # noqa: S105 - no secret
"""In place of a code: the server asks for a password, and there is none."""
NO_PRIVILEGE = "42501"
TEMPORARY = ("25006", "25P03", "40001", "40P01")
"""Temporary errors, also if psycopg does not call them operational: read-only after a failover, ended transactions."""
SQLSTATE_ONLY = 3
"""PQERRORS_SQLSTATE of libpq-fe.h: the message of an error is its code."""
STATE = re.compile(r":\s+([0-9A-Z]{5})\s*\Z")
ATTEMPT_SECONDS = 10.0


def explained(engine: Engine, error: DatabaseError) -> Failure:
    """The error for the administrator: `database-login`, `database-unavailable` or `database-corrupt`."""
    name, fact = engine.url.render_as_string(), " ".join(str(error.orig).split())
    state = getattr(error.orig, "sqlstate", None) or _state_of_login(engine, error.orig)
    if state in LOGIN_STATES or state == NO_PASSWORD:
        return BrokenInstallation(
            "database-login",
            f"the database server refused the login to {name}: {fact}",
            hint="Correct user, password and name of the database in database_url, or pg_hba.conf of the server",
        )
    if state == NO_PRIVILEGE:
        return BrokenInstallation(
            "database-login",
            f"the user of {name} has too few rights: {fact}",
            hint="Make that user the owner of the database (ALTER DATABASE ... OWNER TO ...)",
        )
    if isinstance(error, OperationalError) or state in TEMPORARY:
        return server_unavailable(name, fact)
    return server_corrupt(name, fact)


def _state_of_login(engine: Engine, error: BaseException | None) -> str:
    """Why a connection failed. It takes another attempt, because psycopg keeps no code of the first one."""
    failed = getattr(error, "pgconn", None)
    if failed is None:
        return ""
    if failed.needs_password:
        return NO_PASSWORD
    library = _libpq()
    return "" if library is None else _state_of_attempt(engine, library)


def _state_of_attempt(engine: Engine, library: Any) -> str:
    from psycopg import OperationalError as ConnectFailed
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo, ConnStatus, PGconn, PollingStatus

    _, options = engine.dialect.create_connect_args(engine.url)
    known = {one.keyword.decode() for one in Conninfo.get_defaults()}
    address = make_conninfo(**{key: value for key, value in options.items() if key in known})
    until = time.monotonic() + ATTEMPT_SECONDS
    connection: Any = PGconn.connect_start(address.encode())
    try:
        library.PQsetErrorVerbosity(ctypes.c_void_p(connection.pgconn_ptr), SQLSTATE_ONLY)
        while connection.status != ConnStatus.BAD and time.monotonic() < until:
            status = connection.connect_poll()
            if status not in (PollingStatus.READING, PollingStatus.WRITING):
                break
            waits = [connection.socket]
            reads, writes = (waits, []) if status == PollingStatus.READING else ([], waits)
            select.select(reads, writes, [], max(0.0, until - time.monotonic()))
        found = STATE.search(connection.error_message.decode(errors="replace"))
    except ConnectFailed:
        return ""
    finally:
        connection.finish()
    return found[1] if found else ""


def _libpq() -> Any:
    """The libpq that psycopg has loaded, for a function that psycopg does not offer. None if psycopg contains it."""
    paths = (line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines())
    path = next((one for one in paths if Path(one).name.startswith("libpq")), None)
    library = None if path is None else ctypes.CDLL(path)
    return library if hasattr(library, "PQsetErrorVerbosity") else None
