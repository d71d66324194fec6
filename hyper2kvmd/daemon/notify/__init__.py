"""Delivers notifications to the destinations of the configuration.

What is notified is decided in jobs/outbox.py, in the transaction of the event.
"""

from __future__ import annotations
