"""Fixtures of the host, for every unit test."""

from __future__ import annotations

from tests.support.postgres import address as address
from tests.support.postgres import postgres as postgres
from tests.support.postgres import server_queue as server_queue
