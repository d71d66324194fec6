"""register: make the machine known to the target."""

from __future__ import annotations

from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.results import Artifact, Registration
from hyper2kvmd.stages.bench import Bench


def register(bench: Bench, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
    """Make the published machine known to the target. Raises as `Target.register` does."""
    return bench.target.register(hardware, guest, artifact)
