"""Questions to the root helper, well formed or not, put by the real service user through the real sudo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hyper2kvmd.model.disks import Image
from tests.support.host import REPOSITORY, as_service
from tests.support.kernel import Kernel

ASKER = REPOSITORY / "tests" / "support" / "boundary" / "asker.py"
PROBE = {"verb": "probe", "job": "test", "fstypes": ["ext4"]}


def linear(leg: dict[str, object]) -> dict[str, object]:
    return {"kind": "linear", "chunk": 0, "legs": [leg]}


def mount_request(image: Image, **changes: object) -> dict[str, Any]:
    segment = image.layout.volumes[0].segments[0]
    return {
        "verb": "mount",
        "job": "test",
        "transport": "file",
        "fstype": "ext4",
        "read_only": False,
        "table": [linear({"fd": 0, "offset": segment.offset, "length": segment.length})],
        "crypt": [],
        "nbd": [],
        **changes,
    }


def ask(helper: tuple[str, ...] | Path, *, argv: list[str] | None = None, **asked: Any) -> dict[str, Any]:
    specification = json.dumps({"helper": helper, **asked}, default=str)
    command_line = argv if argv is not None else as_service()
    done = subprocess.run(
        [*command_line, sys.executable, ASKER, specification], capture_output=True, text=True, timeout=100
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "Traceback" not in answer["output"]
    return answer


def refusal(answer: dict[str, Any]) -> str:
    """The code of a refusal that came as a structured reply, with nothing mounted."""
    assert answer["mounts"] == 0
    assert answer["status"] == 0
    assert set(answer["reply"]) == {"error", "message"}
    assert Kernel.now().clean
    return str(answer["reply"]["error"])
