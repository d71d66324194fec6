"""Delivers notifications by HTTP POST, signed with a key that the receiver knows too."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import os
import socket
import ssl
import stat
import time
from urllib.parse import urlsplit

import hyper2kvmd
from hyper2kvmd.daemon.http import (
    ClientConnectorCertificateError,
    ClientError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
)
from hyper2kvmd.daemon.notify.reach import forbidden
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import Failure, Kind, MigrationFailed, TryLater
from hyper2kvmd.host.person import Person
from hyper2kvmd.model.notifications import Destination, Notification

TIMEOUT = ClientTimeout(total=30.0, sock_connect=10.0)
"""Seconds: from the look-up of the host's name to the end of the answer, and for the connection."""
LOOK_SECONDS = 10.0
"""For the question why a receiver cannot be reached: a look-up of its name may hang."""
MAX_ANSWER = 500
"""Bytes of an answer that are read."""
MIN_SECRET, MAX_SECRET = 16, 4096
"""Bytes."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
BLOCKED = (errno.EPERM, errno.EACCES)
"""Errors of a connection that this host forbids. With the unit's IPAddressDeny=, a connection times out instead."""


async def deliver(destination: Destination, notification: Notification) -> None:
    """Raises TryLater (`notify-unreachable`) and MigrationFailed (`notify-blocked`, `notify-refused`, `notify-secret`).

    Redirects are not followed, and no proxy is used.
    """
    body = notification.model_dump_json(exclude_none=True).encode(errors="replace")
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"hyper2kvmd/{hyper2kvmd.__version__}",
        "Hyper2kvm-Id": notification.id,
        **_signed(destination, body),
    }
    url = destination.webhook or ""
    trust = await in_a_thread("certificates", ssl.create_default_context) if url.startswith("https:") else True
    try:
        async with (
            ClientSession(timeout=TIMEOUT, trust_env=False, auto_decompress=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False, ssl=trust) as answer,
        ):
            if not 200 <= answer.status < 300:
                raise _refused(url, answer.status, await answer.content.read(MAX_ANSWER))
    except (ClientError, OSError, ValueError) as error:
        raise await _unreachable(url, error) from error


def check(destination: Destination, user: Person) -> None:
    """Raises MigrationFailed (`notify-secret`)."""
    if destination.secret_file is not None:
        _read_secret(destination, user)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over timestamp, a full stop and body."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _signed(destination: Destination, body: bytes) -> dict[str, str]:
    if destination.secret_file is None:
        return {}
    secret, timestamp = _read_secret(destination, Person.of(os.geteuid())), str(int(time.time()))
    return {"Hyper2kvm-Timestamp": timestamp, "Hyper2kvm-Signature": signature(secret, timestamp, body)}


def _read_secret(destination: Destination, user: Person) -> bytes:
    """The key, if nobody but root and `user` can read it. Raises MigrationFailed (`notify-secret`)."""
    path = destination.secret_file
    assert path is not None  # noqa: S101 - narrows the type
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise _no_secret(destination, "is not a file")
            if facts.st_uid not in (0, user.uid) or facts.st_mode & OTHERS:
                raise _no_secret(destination, "can be read or changed by other users")
            if not user.may(os.R_OK, handle):
                raise _no_secret(destination, f"cannot be read by {user.name}")
            secret = file.read(MAX_SECRET + 1).strip()
    except OSError as error:
        raise _no_secret(destination, f"cannot be read: {error.strerror}") from error
    if not MIN_SECRET <= len(secret) <= MAX_SECRET:
        raise _no_secret(destination, f"has {len(secret)} bytes; a key has {MIN_SECRET} to {MAX_SECRET}")
    return secret


def _no_secret(destination: Destination, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "notify-secret",
        f"the secret_file {destination.secret_file} of the destination {destination.label} {fact}",
        hint=f"Run `install -o hyper2kvm -g hyper2kvm -m 0600 KEY {destination.secret_file}` as root, with the file of "
        "a random key",
        kind=Kind.OPERATOR,
    )


def _refused(url: str, status: int, answer: bytes) -> MigrationFailed:
    said = " ".join(answer.decode(errors="replace").split())
    redirect = " (redirects are not followed)" if 300 <= status < 400 else ""
    return MigrationFailed(
        "notify-refused",
        f"{_shown(url)} answered with HTTP status {status}{redirect}{': ' + said if said else ''}",
        hint="Correct the URL in notify, or what the receiver's log names",
        kind=Kind.OPERATOR,
    )


async def _unreachable(url: str, error: Exception) -> Failure:
    cause = getattr(error, "os_error", error)
    if not isinstance(error, ClientSSLError) and getattr(cause, "errno", None) in BLOCKED:  # its number is of OpenSSL
        return _blocked(_shown(url))
    if isinstance(cause, TimeoutError | socket.gaierror) and (what := await _forbidden(url)):
        return _blocked(what)
    return TryLater(
        "notify-unreachable",
        f"{_shown(url)} cannot be reached: {_reason(error)}",
        hint="Check the URL in notify, its certificate, and the network",
    )


async def _forbidden(url: str) -> str:
    host = urlsplit(url).hostname or ""
    try:
        what = await asyncio.wait_for(in_a_thread("reach", forbidden, host), LOOK_SECONDS)
    except TimeoutError:
        return ""
    return _shown(url) if what == host else what


def _blocked(what: str) -> MigrationFailed:
    return MigrationFailed(
        "notify-blocked",
        f"this host forbids connections of the service to {what}",
        hint="Add a drop-in with IPAddressAllow= for that address: `systemctl edit hyper2kvmd`. The unit allows "
        "connections to this host only",
        kind=Kind.OPERATOR,
    )


def _reason(error: Exception) -> str:
    """In the words of the system, not of the library."""
    cause = getattr(error, "os_error", error)
    if isinstance(error, ClientConnectorCertificateError):
        failed = error.certificate_error
        return f"its certificate is not valid: {getattr(failed, 'verify_message', '') or failed}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.errno and not isinstance(error, ClientSSLError):
        return (os.strerror(cause.errno) if cause.errno > 0 else cause.strerror) or str(cause)
    return " ".join((str(error) or type(error).__name__).split())


def _shown(url: str) -> str:
    """Without path and password, which are often the key to the receiver."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
