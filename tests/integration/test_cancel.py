"""A real worker ends by itself, and in order, when its job is cancelled in the middle of a stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.model.jobs import Stage, State
from tests.support.host import MIB
from tests.support.service import running, until

LOOP = bytes.fromhex("ebfe").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that jumps to itself: QEMU would run it until the proof gives up."""
SLOW: Mapping[Stage, tuple[dict[str, object], int]] = {
    Stage.CONVERT: ({}, MIB),
    Stage.VERIFY: ({"verify": "boot"}, 0),
}
"""Keys of the migration, and the bandwidth of the daemon, with which a stage takes minutes."""


@pytest.mark.parametrize("stage", SLOW)
def test_a_cancelled_job_ends_in_order(service_folder: Path, stage: Stage) -> None:
    keys, bandwidth = SLOW[stage]
    with running(service_folder, ("none",), bandwidth_limit=bandwidth) as service:
        source = service.sources / "loop.raw"
        source.write_bytes(LOOP.ljust(64 * MIB, b"x"))
        source.chmod(0o644)
        client = Client(service.socket)
        text = json.dumps({"vmdk": str(source), "vm_name": "loop", "guest": "none", **keys})
        number = client.submit_one(text, name="loop").id

        def busy() -> bool:
            assert client.job(number).state.active, client.job(number).problems
            return any(one.stage is stage and one.step for one in client.status().running)

        until(f"it is in {stage}", busy)
        answer = client.cancel(number)
        assert (answer.state, answer.stage, answer.cancelling) == (State.RUNNING, stage, True)
        until("it is cancelled", lambda: client.job(number).state is State.CANCELLED)
        assert "is killed" not in service.log.read_text()
        assert service.process is not None
        assert psutil.Process(service.process.pid).children(recursive=True) == []
