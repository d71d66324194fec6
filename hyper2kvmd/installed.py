"""Paths on an installed host, for modules that must load fast."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION = Path("/etc/hyper2kvm/hyper2kvmd.yaml")
CONTROL_SOCKET = Path("/run/hyper2kvm/control.sock")
SERVICE_USER = "hyper2kvm"
"""Its group of the same name has the operators."""
SUBMITTERS = "hyper2kvm-submit"
"""The group that may drop files into the spool."""
