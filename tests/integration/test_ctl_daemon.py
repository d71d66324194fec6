"""h2kvmctl and a real daemon: what an operator types, in the order of a working day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
STARTING_SECONDS = 60


class Day:
    """One daemon on folders of its own, and the operator at its socket."""

    def __init__(self, root: Path) -> None:
        self.root, self.socket, self.config = root, root / "s", root / "hyper2kvmd.yaml"
        places = {"spool_dir": "spool", "state_dir": "state", "conversion_dir": "work", "output_dir": "out"}
        lines = [f"{key}: {root / folder}" for key, folder in places.items()]
        lines += [f"control_socket: {self.socket}", "metrics_listen: 127.0.0.1:0"]
        self.config.write_text("\n".join(lines) + "\n")

    def ctl(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hyper2kvmd.cli.ctl", *map(str, arguments)]
        if "gc" not in arguments:
            command += ["--socket", str(self.socket)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "HOME": str(self.root)}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.root, env=environment, timeout=120, check=False
        )

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.ctl(*arguments, "--json").stdout)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    day = Day(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        program = "from hyper2kvmd.cli.daemon import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "--config", str(day.config)], cwd=PROJECT, stdout=log, stderr=log
        )
    try:
        for _ in range(STARTING_SECONDS * 10):
            if day.socket.exists() or process.poll() is not None:
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield day
    finally:
        process.terminate()
        process.wait(60)


def test_submitting_as_json_is_one_document_whatever_the_files_are(day: Day) -> None:
    day.ctl("pause")
    (day.root / "bad.yaml").write_text("vmdk: /a\nmemory: lots\n")
    (day.root / "odd\nname.yaml").write_text("vmdk: /a\n")
    (day.root / "odd\udcff.yaml").write_text("vmdk: /a\nvm_name: named\n")
    (day.root / "web01.yaml").write_text("vmdk: missing.vmdk\n")
    named, web01, bad, odd = day.json("submit", "bad.yaml", "odd\nname.yaml", "odd\udcff.yaml", "web01.yaml")
    assert (named["vm_name"], web01["vm_name"]) == ("named", "web01")
    assert (bad["file"], bad["problems"][0]["key"]) == ("bad.yaml", "memory")
    assert odd["problems"][0]["key"] == "vm_name"


def test_a_working_day(day: Day) -> None:
    (day.root / "web01.yaml").write_text("vmdk: missing.vmdk\n")
    (day.root / "bad.yaml").write_text("vmdk: /a\nmemory: lots\n")
    assert day.ctl("pause").stdout == "the queue is paused\n"
    assert day.json("status")["state"] == "paused"

    submitted = day.ctl("submit", "web01.yaml", "bad.yaml")
    assert submitted.stdout == "web01.yaml: job 1 (web01) is queued\n"
    assert submitted.stderr.startswith("bad.yaml:2:9: memory is lots")
    assert submitted.returncode == 2

    assert day.ctl("hold", "1").stdout == "held job 1 (web01)\n"
    assert day.ctl("release", "1").stdout == "released job 1 (web01)\n"
    assert "[job-state]" in day.ctl("release", "1").stderr
    assert day.ctl("show", "77").returncode == 1
    assert [(job["id"], job["state"]) for job in day.json("list")] == [(1, "queued")]
    assert day.json("show", "1")["migration"]["vmdk"] == [str(day.root / "missing.vmdk")]
    assert f"source       {day.root}/missing.vmdk" in day.ctl("show", "1").stdout

    assert day.ctl("resume").stdout == "the queue is running: 1 job is queued; 0 of 2 slots are in use\n"
    watched = day.ctl("watch", "1")
    assert watched.returncode == 1
    assert "missing.vmdk does not exist" in watched.stdout
    assert [event["kind"] for event in day.json("logs", "1")][-1] == "failed"
    assert "failed: " in day.ctl("logs", "1").stdout

    day.ctl("pause")
    assert day.ctl("retry", "1").stdout == "queued job 1 (web01) again\n"
    assert day.ctl("cancel", "1").stdout == "cancelled job 1 (web01)\n"
    assert day.ctl("watch", "1").returncode == 1
    assert day.ctl("gc", "--config", day.config).stdout == "nothing to remove\n"
    assert day.ctl("drain").stdout == "the queue is draining: the daemon stops\n"
