"""Destinations of notifications: what each needs on this host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hyper2kvmd.cli.checks.check import Check, Host, Line, from_failure, ok
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.notify.delivery import faults
from hyper2kvmd.model.notifications import Destination


def checks(config: DaemonConfig) -> Iterator[Check]:
    for one in config.notify:
        yield Check("Notifications", f"destination {one.label}", partial(_destination, one))


def _destination(one: Destination, host: Host) -> Iterator[Line]:
    thing, failed = f"destination {one.label}", False
    for failure in faults(one, host.service or host.me):
        failed = True
        yield from from_failure(thing, failure)
    if not failed:
        yield ok(thing, f"{one.kinds[0]} on {', '.join(one.on)}; `h2kvmctl notify-test {one.label}` sends a test")
