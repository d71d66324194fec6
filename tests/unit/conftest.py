"""Fixtures of the host, and a queue, for every unit test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyper2kvmd.jobs.store import Store
from tests.support.postgres import address as address
from tests.support.postgres import postgres as postgres
from tests.support.postgres import server_queue as server_queue


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    """An empty queue in each kind of database."""
    store = Store(address)
    yield store
    store.close()
