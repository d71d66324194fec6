"""The judges themselves: they accept a clean run, and each complains about what it is for."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.faults import invariants, outputs
from tests.faults.box import in_box
from tests.faults.disks import guest_disk, small_disk
from tests.faults.house import House, until
from tests.faults.legal_events import illegal_events
from tests.faults.watch import Watch


@in_box
def test_a_clean_run(house: House) -> None:
    small, guest = small_disk(house.sources), guest_disk(house.sources)
    before, digest = outputs.sources(house), outputs.guest_digest(small)
    with Watch(house) as watch:
        house.start()
        house.drop_job("small", vmdk=small, guest="none")
        house.drop_job("guest1", vmdk=guest, regen_initramfs=False)
        house.drop_job("guest2", vmdk=guest, regen_initramfs=False)
        house.drop("bad.yaml", "vmdk: [")
        house.until_quiet()
        assert house.stop() == 0, house.tail()
    invariants.check(house)
    assert watch.wrong == []
    assert outputs.sources(house) == before
    files = outputs.guest_files(house.images / "guest1.qcow2")
    assert outputs.wrong_outputs(house.images, "small", digest=digest) == []
    assert outputs.wrong_outputs(house.images, "guest2", files=files) == []
    assert files != outputs.guest_files(guest), "it was repaired"
    _each_judge_complains(house, guest)


def _each_judge_complains(house: House, guest: Path) -> None:
    done, images = house.spool / "done", house.images
    wrong: dict[str, Callable[[], object]] = {
        "in no folder": lambda: next(done.glob("small*.yaml")).unlink(),
        "has 0 rows": lambda: _change(house, "UPDATE jobs SET spool_path = 'done/x' WHERE vm_name = 'guest1'"),
        "nobody dropped this": lambda: (done / "unknown.yaml").write_text("unknown"),
        "has no outcome": lambda: _remove(done.glob("guest2*.result.*")),
        "without its file": lambda: next(done.glob("guest2*.yaml")).rename(house.spool / "active/x.yaml"),
        "is still at active": lambda: (house.spool / "active/x.yaml").rename(house.spool / "active/y.yaml"),
        "its events succeeded": lambda: _change(house, "UPDATE jobs SET state = 'running' WHERE vm_name = 'small'"),
        "is unknown": lambda: _change(house, "UPDATE events SET kind = 'x' WHERE kind = 'claimed' AND job_id = 1"),
        "while none ran": lambda: _change(house, "DELETE FROM events WHERE message = 'verify' AND job_id = 2"),
        ".left was left": lambda: (images / ".left").touch(),
        "web.1 was left": lambda: (house.conversions / "web.1").mkdir(),
    }
    for words, spoil in wrong.items():
        spoil()
        found = [*invariants.account(house), *invariants.nothing_left(house, patience_seconds=0)]
        found += illegal_events(house.rows(), house.rows("SELECT * FROM events ORDER BY id"))
        assert any(words in one for one in found), f"{words}: {found}"
    with subprocess.Popen(["qemu-img", "600"], executable="/bin/sleep") as process:
        try:  # the kernel shows the name of a new program only a moment after Popen returns
            until(lambda: "qemu-img" in str(invariants.nothing_left(house, patience_seconds=0)), "it is seen")
        finally:
            process.kill()
    shutil.copyfile(images / "guest1.qcow2", images / "other.qcow2")
    assert "instead of" in outputs.wrong_outputs(images, "other")[0]
    files = outputs.guest_files(images / "guest1.qcow2")
    assert "after a clean run" in outputs.wrong_outputs(images, "guest1", files={**files, "etc": (0, 0, 0, "")})[0]
    assert "other content" in outputs.wrong_outputs(images, "guest1", digest="0")[0]
    before = outputs.sources(house)
    os.utime(guest)
    assert outputs.sources(house) != before


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


def _change(house: House, statement: str) -> None:
    with sqlite3.connect(house.database) as connection:
        connection.execute(statement)
    connection.close()
