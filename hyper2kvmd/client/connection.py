"""One request on the control socket and its answer. Every refusal becomes a `Failure`."""

from __future__ import annotations

import errno
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hyper2kvmd.daemon.wire import RefusalBody
from hyper2kvmd.errors import AlreadyActive, Failure, InvalidInput, Kind, MigrationFailed, NotFound, TryLater
from hyper2kvmd.socket_connection import SocketConnection

TIMEOUT = 60.0
"""Seconds to wait for each part of an answer: the daemon answers from its database."""
JSON = {"Content-Type": "application/json"}
FAILURES = {400: InvalidInput, 403: InvalidInput, 404: InvalidInput, 409: InvalidInput, 503: TryLater}


CODES: Mapping[str, type[Failure]] = {
    "job-unknown": NotFound,
    "batch-unknown": NotFound,
    "job-duplicate": AlreadyActive,
}
"""Kinds of invalid input that are told apart by their code."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]


def request(socket: Path, method: str, path: str, body: object = None, *, timeout_seconds: float = TIMEOUT) -> Reply:
    """The answer to one request.

    Raises TryLater (`daemon-unreachable`, `daemon-silent`), InvalidInput (`socket-forbidden`), Rejected for a
    migration with errors, the failure that the daemon reports for other refusals, and MigrationFailed
    (`daemon-refused`) for one without a report.
    """
    connection = SocketConnection(socket, timeout_seconds)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise _unreachable(socket, error) from error
        try:
            connection.request(method, path, None if body is None else json.dumps(body), JSON)
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            fact = f"the daemon behind {socket} did not answer: {error or type(error).__name__}"
            raise TryLater(
                "daemon-silent", fact, hint="Read its log (`journalctl -u hyper2kvmd`), then try again"
            ) from error
    finally:
        connection.close()
    if status >= 400:
        raise _refused(status, answer, path)
    return Reply(status, answer, dict(response.getheaders()))


def _unreachable(socket: Path, error: OSError) -> Failure:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return InvalidInput(
            "socket-forbidden",
            f"this user may not use the control socket {socket}",
            hint="Become a member of the group hyper2kvm or hyper2kvm-submit, or use sudo",
        )
    return TryLater(
        "daemon-unreachable",
        f"no daemon answers on the control socket {socket} ({reason})",
        hint="Start it (`systemctl start hyper2kvmd`), or give the path of its socket with --socket",
    )


def _refused(status: int, answer: bytes, path: str) -> Failure:
    try:
        problems = RefusalBody.model_validate_json(answer).problems
    except ValidationError:
        problems = ()
    if not problems:
        return MigrationFailed(
            "daemon-refused",
            f"the daemon answered {path} with HTTP status {status}",
            hint="Read its log: `journalctl -u hyper2kvmd`",
            kind=Kind.OPERATOR,
        )
    if status == 422:
        from hyper2kvmd.spec import Rejected  # loads the parser, which only this refusal needs

        return Rejected(problems)
    first, message = problems[0], "; ".join(one.message for one in problems)
    kind = FAILURES.get(status, MigrationFailed)
    if kind is InvalidInput:
        kind = CODES.get(first.code, kind)
    return kind(first.code, message, hint=first.hint, kind=Kind(first.kind))
