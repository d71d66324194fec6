"""The access to a guest, asked by a process of its own."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from hyper2kvmd.model.disks import Image, Segment, Volume
from hyper2kvmd.model.orders import HelperCall
from hyper2kvmd.volumes.mapping import linear
from tests.support.host import (
    service_python,
)

CLIENT = "tests.support.boundary.client"


def facts(text: str) -> dict[str, Any]:
    """All facts that a client said, as one."""
    return {key: value for line in text.splitlines() if line.startswith("{") for key, value in json.loads(line).items()}


def client_argv(action: str, image: Image, helper: HelperCall, *keys: str) -> list[str]:
    folder = image.disks[0].path.parent
    return service_python(CLIENT, action, image.model_dump_json(), folder, json.dumps(helper, default=str), *keys)


def client(
    action: str, image: Image, helper: HelperCall, *keys: str, prefix: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    argv = [*prefix, *client_argv(action, image, helper, *keys)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    said = facts(done.stdout)
    assert said, done.stderr
    return done.returncode, said


def check(
    helper: HelperCall, contents: tuple[str, ...], *prefix: str, action: str = "check"
) -> tuple[int, dict[str, Any]]:
    volumes = [
        Volume(
            kind="partition",
            name=f"partition of {content}",
            content=content,
            stretches=linear(Segment(offset=0, length=512)),
        )
        for content in contents
    ]
    text = json.dumps([volume.model_dump() for volume in volumes])
    argv = [*prefix, *service_python(CLIENT, action, text, "/var/tmp", json.dumps(helper, default=str))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, facts(done.stdout)
