"""The root helper hangs, dies or talks nonsense: the job waits for a person or tries again, and is done afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults import invariants, outputs
from tests.faults.box import in_box
from tests.faults.disks import guest_disk
from tests.faults.house import House, until

HELPER = Path("/usr/libexec/hyper2kvm/helper")
SAYS = "import os, socket, sys, time\nchannel = socket.socket(fileno=0)\nchannel.recv(65536)\n"
"""The beginning of a helper that has heard the request."""
BAD = {
    "nonsense": f"{SAYS}channel.send(os.urandom(3000))\n",
    "ends": "",
    "dies": f"{SAYS}os.kill(os.getpid(), 9)\n",
    "empty object": f"{SAYS}channel.send(b'{{}}')\n",
    "no mount": f'{SAYS}channel.send(b\'{{"outcome": "ok"}}\')\n',
    "list": f"{SAYS}channel.send(b'[' * 60000)\n",
    "loud": "import sys\nfor _ in range(100_000):\n    print('x' * 100, flush=True)\n",
    "other descriptors": f'{SAYS}socket.send_fds(channel, [b\'{{"outcome": "ok"}}\'], [0, 1, 2, 0])\n',
    "hangs": f"{SAYS}time.sleep(100_000)\n",
}
SLOW, OTHERS = pytest.mark.slow, BAD.keys() - {"nonsense"}


def install(text: str) -> None:
    draft = HELPER.with_name("draft")
    draft.write_text(f"#!/usr/bin/python3 -I\n{text}")
    draft.chmod(0o755)
    draft.rename(HELPER)


@pytest.mark.parametrize(
    "kind", ["nonsense", *(pytest.param(one, marks=pytest.mark.slow) for one in BAD if one != "nonsense")]
)
@in_box
def test_job_survives_a_bad_helper(house: House, kind: str) -> None:
    guest = guest_disk(house.sources)
    before = outputs.sources(house)
    house.start(retry={"max_attempts": 3, "delay": 0.5, "backoff": 1})
    good = HELPER.with_name("good")
    shutil.copy2(HELPER, good)
    install(BAD[kind])
    house.drop_job("guest", vmdk=guest, regen_initramfs=False)
    until(lambda: _stopped(house), lambda: f"it is held or has failed: {house.states()} {house.tail()}")
    assert not list(house.images.glob("[!.]*")), "nothing is delivered"
    good.replace(HELPER)
    (job,) = house.rows()
    assert house.ask("POST", f"/v1/jobs/{job['id']}/retry")[0] == 200, house.tail()
    house.until_quiet()
    assert house.states() == {"guest": ["succeeded"]}, house.tail()
    assert house.stop() == 0, house.tail()
    invariants.check(house)
    assert outputs.sources(house) == before
    assert outputs.wrong_outputs(house.images, "guest") == []


def _stopped(house: House) -> bool:
    return bool(house.rows("SELECT id FROM jobs WHERE state IN ('held', 'failed')"))
