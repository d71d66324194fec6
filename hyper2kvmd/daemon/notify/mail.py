"""Delivers notifications as plain text by the sendmail program of this host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed, sentences
from hyper2kvmd.host import run
from hyper2kvmd.host.person import Person
from hyper2kvmd.model.notifications import Destination, Notification
from hyper2kvmd.units import local_time

SENDMAIL = Path("/usr/sbin/sendmail")
SECONDS = 60.0
"""For sendmail to accept a message."""
LONGEST_SUBJECT = 150
POLICY = EmailPolicy(linesep="\n", max_line_length=200, cte_type="7bit")


def deliver(destination: Destination, notification: Notification) -> None:
    """Raises MigrationFailed (`notify-program`)."""
    check(destination, Person.of(os.geteuid()))
    text = message(destination, notification).as_bytes()
    try:
        fault = run.run_within(SECONDS, [str(SENDMAIL), "-t", "-i"], text, {})
    except OSError as error:
        fault = error.strerror or str(error)
    if fault:
        raise _failed(fault)


def check(_destination: Destination, user: Person) -> None:
    """Raises MigrationFailed (`notify-program`)."""
    try:
        usable = SENDMAIL.is_file() and user.may(os.X_OK, SENDMAIL)
    except OSError:
        usable = False
    if not usable:
        raise _failed("it is not installed")


def message(destination: Destination, notification: Notification) -> EmailMessage:
    """A whole message. Nothing that guests or submitters name can add a header or a receiver."""
    mail = EmailMessage(policy=POLICY)
    host = socket.gethostname()
    mail["From"] = destination.from_ or f"{Person.of(os.geteuid()).name}@{host}"
    mail["To"] = ", ".join(destination.mail)
    mail["Subject"] = f"[hyper2kvm] {_plain(notification.summary)[:LONGEST_SUBJECT]}"
    mail["Date"] = format_datetime(notification.at)
    mail["Message-ID"] = f"<{notification.id}@{_domain(host)}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join([*_lines(notification), ""]), cte="quoted-printable")
    return mail


def _lines(notification: Notification) -> Iterator[str]:
    yield _plain(notification.summary)
    yield ""
    yield f"Event: {notification.event}"
    yield f"Time: {local_time(notification.at)}"
    yield f"Host: {notification.host}"
    if job := notification.job:
        yield f"Job: {job.id}, {_plain(job.vm_name)}, {job.state.value}"
        yield f"Submitter: {_plain(job.submitter)}"
        if job.batch:
            yield f"Batch: {_plain(job.batch)}"
        if job.warnings:
            yield f"Warnings: {job.warnings}"
        for problem in job.problems:
            yield f"Error: {_plain(sentences(problem.message, problem.hint))} [{problem.code}]"
        yield ""
        yield f"More: h2kvmctl show {job.id}"
    if notification.batch_report:
        yield ""
        yield from (_plain(line) for line in notification.batch_report.splitlines())


def _plain(text: str) -> str:
    """On one line, of printable characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


def _domain(host: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in ".-") else "-" for letter in host)


def _failed(fact: str) -> MigrationFailed:
    return MigrationFailed(
        "notify-program",
        f"{SENDMAIL} did not accept the mail: {fact}",
        hint="Install and configure a mail server of this host, such as Postfix or msmtp-mta. With hardened.conf, no "
        "setgid program such as Postfix's sendmail works",
        kind=Kind.OPERATOR,
    )
