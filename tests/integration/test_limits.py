"""A job's limits, as the worker process takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Limits, Order
from tests.support.disks import sh


@pytest.mark.parametrize("priority", ["idle", "normal"])
def test_an_idle_worker_is_idle_before_it_touches_the_disk(priority: Literal["idle", "normal"], tmp_path: Path) -> None:
    source = tmp_path / "disk.vmdk"
    sh("qemu-img", "create", "-f", "vmdk", source, "8M")
    order = Order(
        job_id="1",
        migration=Migration(vmdk=(source,), vm_name="web01"),
        conversion_dir=tmp_path / "conversions",
        output_dir=tmp_path / "images",
        helper=("none",),
        limits=Limits(io_priority=priority),
    )
    argv = [sys.executable, "-m", "hyper2kvmd.worker"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(order.model_dump_json() + "\n")
        worker.stdin.flush()
        while json.loads(worker.stdout.readline())["event"] != "awaiting-space":
            pass
        assert ("idle" in sh("ionice", "-p", str(worker.pid))) == (priority == "idle")
        worker.communicate("wait\n")
