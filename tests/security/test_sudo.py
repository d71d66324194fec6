"""What sudo lets through to root: one command line, for one user, and nothing besides."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.asking import PROBE, ask
from tests.support.host import HELPER, REPOSITORY, SUDOERS, as_service

WORDS = "password is required", "not allowed", "not permitted to use", "unknown user"


def refused(answer: dict[str, object]) -> None:
    assert answer["reply"] is None
    assert any(word in str(answer["output"]) for word in WORDS), answer


def test_visudo_accepts_the_file_without_a_word() -> None:
    done = subprocess.run(
        ["visudo", "-c", "-s", "-f", REPOSITORY / "sudoers.d" / "hyper2kvm"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize(
    "extra",
    [
        ["--help"],
        [""],
        ["x", "y"],
        ['""'],
        ["-o", "suid,dev", "/run/x/../../usr"],
        ["\n"],
        ["--", "mount"],
        ["*"],
    ],
    ids=repr,
)
def test_no_argument_at_all(installed_helper: tuple[str, ...], extra: list[str]) -> None:
    refused(ask((*installed_helper, *extra), request=PROBE))


@pytest.mark.parametrize(
    "words",
    [
        [f"{HELPER} x"],
        [f'{HELPER} ""'],
        [f"{HELPER}\n"],
        [f"{HELPER}/../helper"],
        ["/usr/bin/python3", "-IS", str(HELPER)],
        ["/bin/sh", "-c", "true"],
        ["-s", str(HELPER)],
        ["-i", str(HELPER)],
        ["-e", str(HELPER)],
        ["-E", str(HELPER)],
        ["PYTHONPATH=/var/tmp", str(HELPER)],
        ["-u", "nobody", str(HELPER)],
        ["-u", "#-1", str(HELPER)],
        ["-g", "shadow", str(HELPER)],
        ["-D", "/var/tmp", str(HELPER)],
        ["-R", "/", str(HELPER)],
    ],
    ids=repr,
)
def test_no_other_command_user_group_or_setting(installed_helper: tuple[str, ...], words: list[str]) -> None:
    refused(ask(("sudo", "-n", *words), request=PROBE))


def test_a_copy_with_the_helpers_name_is_not_the_helper(
    installed_helper: tuple[str, ...], service_folder: Path
) -> None:
    copy = service_folder / "helper"
    copy.write_bytes(HELPER.read_bytes())
    copy.chmod(0o755)
    refused(ask(("sudo", "-n", str(copy)), request=PROBE))


def test_a_link_swapped_under_sudo_runs_nothing_else(installed_helper: tuple[str, ...], service_folder: Path) -> None:
    """sudo knows a command by its inode, so it takes a link to the helper; it must not run what that becomes."""
    evil, marker, link = service_folder / "evil", service_folder / "ran", service_folder / "helper"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    over = threading.Event()

    def swap() -> None:
        draft = service_folder / "draft"
        while not over.is_set():
            for target in (HELPER, evil):
                draft.symlink_to(target)
                draft.rename(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(100):
            subprocess.run(as_service("sudo", "-n", link), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    finally:
        over.set()
        swapper.join()
    assert not marker.exists()


def test_nobody_else(installed_helper: tuple[str, ...]) -> None:
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--reset-env", "--"]
    refused(ask(installed_helper, argv=nobody, request=PROBE))


def test_settings_of_the_host_do_not_come_between(installed_helper: tuple[str, ...]) -> None:
    hostile = SUDOERS.with_name("a-hostile-default")
    hostile.write_text("Defaults requiretty, use_pty, log_input, log_output, !env_reset\n")
    hostile.chmod(0o440)
    try:
        assert ask(installed_helper, request=PROBE)["reply"]["ok"] is True
    finally:
        hostile.unlink()


def test_neither_file_can_be_written_or_replaced_by_the_service_user(installed_helper: tuple[str, ...]) -> None:
    for path in (HELPER, SUDOERS):
        for target in (path, path.parent):
            done = subprocess.run(as_service("test", "-w", target), check=False)
            assert done.returncode == 1, target
        facts = path.stat()
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7022) == (0, 0, 0)
        assert not os.path.islink(path)  # noqa: PTH114
