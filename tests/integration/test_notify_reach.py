"""Webhooks to where this host forbids to connect: the reason is said, and not that the receiver is down."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cgroup_filter import denying
from tests.support.host import REPOSITORY
from tests.support.house import free_port

DENIED = "127.0.0.66"
TRY = """
import asyncio, json, sys
from pathlib import Path
from hyper2kvmd.daemon.notify import webhook
from hyper2kvmd.errors import Failure
from hyper2kvmd.model.notifications import Destination, Notification
group, url, notification = sys.argv[1:]
if group:
    Path(group).write_text("0")
try:
    asyncio.run(webhook.deliver(Destination(webhook=url), Notification.model_validate_json(notification)))
except Failure as failure:
    print(json.dumps([failure.code, failure.message]))
"""
NOTIFICATION = json.dumps(
    {"id": "1", "event": "test", "at": "2026-11-30T12:00:00Z", "host": "kvm01", "summary": "a test"}
)
WITH_RESOLVER = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'


@pytest.fixture(scope="module")
def group() -> Iterator[Path]:
    with denying(DENIED) as group:
        yield group


def failure(url: str, group: Path | str, *prefix: str) -> list[str]:
    argv = [*prefix, sys.executable, "-B", "-c", TRY, str(group), url, NOTIFICATION]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


def test_a_receiver_that_the_unit_does_not_allow(group: Path) -> None:
    url = f"http://{DENIED}:{free_port()}"
    assert failure(f"{url}/a?token=secret", group) == [
        "notify-blocked",
        f"this host forbids connections of the service to {url}",
    ]
    assert failure(url, "") == ["notify-unreachable", f"{url} cannot be reached: Connection refused"]


def test_a_name_whose_dns_server_the_unit_does_not_allow(group: Path, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"search example.com\nnameserver {DENIED}\noptions timeout:1 attempts:1\n")
    prefix = ("unshare", "--mount", "sh", "-c", WITH_RESOLVER, "sh", str(resolver))
    code, fact = failure("https://chat.invalid/", group, *prefix)
    assert (code, fact) == (
        "notify-blocked",
        f"this host forbids connections of the service to the DNS server {DENIED}",
    )
    code, fact = failure("https://chat.invalid/", "", *prefix)
    assert code == "notify-unreachable" and fact.startswith("https://chat.invalid cannot be reached: ")
    assert "ssl:" not in fact
