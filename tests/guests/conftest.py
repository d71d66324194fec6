"""Fixtures for every test that boots a guest."""

from __future__ import annotations

from tests.guests.altered import guest_folder as guest_folder
