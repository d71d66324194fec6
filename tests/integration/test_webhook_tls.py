"""A webhook with TLS: the certificate is checked by the authorities of the host."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyper2kvmd.daemon.notify.webhook import deliver
from hyper2kvmd.errors import TryLater
from hyper2kvmd.model.notifications import Destination, Notification
from tests.support.receivers import webhook

NOTIFICATION = Notification(id="1", event="test", at=datetime(2026, 11, 30, tzinfo=UTC), summary="a test")


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The key and the certificate of a server on 127.0.0.1, which is its own authority."""
    path = tmp_path / "identity.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=receiver"
    certificate = tmp_path / "certificate.pem"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(certificate)]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    path.write_text(path.read_text() + certificate.read_text())
    return path


def test_a_server_that_an_authority_of_the_host_has_signed_gets_it(
    identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    with webhook(identity=identity) as there:
        asyncio.run(deliver(Destination(webhook=there.url), NOTIFICATION))
        assert len(there.accepted) == 1


def test_a_server_that_no_authority_has_signed_gets_nothing(identity: Path) -> None:
    with webhook(identity=identity) as there:
        with pytest.raises(TryLater, match="its certificate is not valid: self-signed certificate"):
            asyncio.run(deliver(Destination(webhook=there.url), NOTIFICATION))
        assert there.posts == []


def test_the_daemon_keeps_no_certificates_in_memory() -> None:
    """Which the client of aiohttp reads when it is imported."""
    check = (
        "import gc, os, ssl\n"
        "before = dict(os.environ)\n"
        "import hyper2kvmd.daemon.service\n"
        "print([len(one.get_ca_certs()) for one in gc.get_objects() if isinstance(one, ssl.SSLContext)])\n"
        "print(os.environ == before)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    contexts, unchanged = done.stdout.splitlines()
    assert set(contexts) <= set("[0, ]") and unchanged == "True"
