"""Imports aiohttp without the certificates of authorities, which its client would read at once.

They take 2 MiB of a daemon that seldom sends a notification. A webhook reads them when it sends one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables by which OpenSSL finds the certificates: SSL_CTX_set_default_verify_paths(3)."""


@contextmanager
def without_authorities() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in PLACES}
    os.environ.update(dict.fromkeys(PLACES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


with without_authorities():
    from aiohttp import (
        ClientConnectorCertificateError,
        ClientError,
        ClientSession,
        ClientSSLError,
        ClientTimeout,
        web,
    )
    from aiohttp.http import HttpProcessingError

__all__ = [
    "ClientConnectorCertificateError",
    "ClientError",
    "ClientSSLError",
    "ClientSession",
    "ClientTimeout",
    "HttpProcessingError",
    "web",
]
