"""Imports aiohttp without what an idle daemon does not need.

The certificates of authorities take 2 MiB: a webhook reads them when it sends a notification. The C++ library takes
1 MiB, and only frozenlist's extension needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

FOR_IMPORT = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull, "FROZENLIST_NO_EXTENSIONS": "1"}
"""By the first two, OpenSSL finds the certificates: SSL_CTX_set_default_verify_paths(3)."""


@contextmanager
def small_imports() -> Iterator[None]:
    """Inside this block, imported modules load neither certificates nor the C++ library."""
    before = {name: os.environ.get(name) for name in FOR_IMPORT}
    os.environ.update(FOR_IMPORT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


with small_imports():
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
