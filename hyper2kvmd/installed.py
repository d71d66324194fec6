"""Paths on an installed host, for modules that must load fast."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION = Path("/etc/hyper2kvm/hyper2kvmd.yaml")
