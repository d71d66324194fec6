"""The repair stage on disks whose guest was not shut down as it should have been."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.guest.linux.root_search import LinuxRoot, find_root
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from tests.support.host import as_qcow2, make_disk
from tests.support.journals import copied_in_use
from tests.support.kernel import Kernel


def test_a_root_that_only_the_journal_knows_is_found(service_folder: Path) -> None:
    """The disk as it is while the guest runs: XFS has not written its folders to their places yet."""
    running = make_disk(service_folder / "running.raw", ("xfs",))

    def write(root: Path) -> Path:
        (root / "usr").mkdir()
        (root / "etc" / "os-release").write_text("ID=debian\n")
        return root / "etc" / "os-release"

    image = copied_in_use(running, service_folder / "disk.raw", write)
    for unclean in (as_qcow2(image), image):
        with open_image(unclean, Helper(default_helper()), service_folder) as opened:
            found = find_root(opened, unclean.layout)
        assert found == LinuxRoot(unclean.layout.volumes[0])
    assert Kernel.now().clean
