"""What holds for every test run."""

from __future__ import annotations

import signal

import pytest

pytest.register_assert_rewrite("tests.support")


def pytest_sessionstart() -> None:
    """SIGTERM ends a run as Ctrl-C does: fixtures take back what they have put on the host."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
