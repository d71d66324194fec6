"""Guest files as the service user meets them: owned, yet not root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.host import REPOSITORY, USER, as_service, command

EDIT = """
import os, sys
from hyper2kvmd.guest.files.root import ConfinedRoot
root = ConfinedRoot(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY))
root.insert("/boot/initrd", 6, b" more")
root.replace("/boot/new", b"new")
root.unlink("/boot/old")
"""


def test_folders_that_even_their_owner_may_not_write_to(service_folder: Path) -> None:
    """As /boot on Red Hat's systems: mode 0555."""
    boot = service_folder / "boot"
    boot.mkdir()
    (boot / "initrd").write_text("initrd")
    (boot / "old").write_text("old")
    command("chown", "-R", USER, service_folder)
    boot.chmod(0o555)
    environment = ("env", f"PYTHONPATH={REPOSITORY}", "PYTHONDONTWRITEBYTECODE=1")
    done = subprocess.run(
        as_service(*environment, sys.executable, "-c", EDIT, service_folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in boot.iterdir()} == {"initrd": "initrd more", "new": "new"}
    assert boot.stat().st_mode & 0o7777 == 0o555
