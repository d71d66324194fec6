"""Which directory a one-shot run works in, and that a signal ends it cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd import config, progress
from hyper2kvmd.cli import oneshot
from hyper2kvmd.errors import BrokenInstallation, InvalidInput, MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.spec import Parsed


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a home directory of its own and no configuration of the daemon."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(oneshot.VARIABLE, raising=False)
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "hyper2kvmd.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(conversion_dir: Path | None = None, output_dir: Path | None = None) -> Migration:
    return Migration(vmdk=(Path("/a.vmdk"),), vm_name="a", conversion_dir=conversion_dir, output_dir=output_dir)


def test_the_first_that_names_a_directory_decides(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(migration: Migration, option: Path | None = None) -> Path:
        return oneshot.conversion_directory(migration, option).path

    assert place(asked()) == host / "home/.cache/hyper2kvm/conversions"
    (host / "service").mkdir()
    (host / "hyper2kvmd.yaml").write_text(f"conversion_dir: {host}/service\n")
    assert place(asked()) == host / "service"
    monkeypatch.setenv(oneshot.VARIABLE, "from-environment")
    assert place(asked()) == host / "from-environment"
    assert place(asked(Path("/from/yaml"))) == Path("/from/yaml")
    assert place(asked(Path("/from/yaml")), Path("from-option")) == host / "from-option"


def test_a_directory_of_the_service_that_is_not_ours_is_passed_over(host: Path) -> None:
    (host / "hyper2kvmd.yaml").write_text(f"conversion_dir: {host}/not-there\n")
    assert oneshot.conversion_directory(asked(), None).named_by == "the home directory"


@pytest.mark.root
def test_a_directory_that_one_may_write_to_is_not_ones_own(host: Path) -> None:
    """Root the service's, and everybody else the one for temporary files."""
    theirs = Path("/tmp")
    if os.geteuid() == 0:
        theirs = host / "service"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
    (host / "hyper2kvmd.yaml").write_text(f"conversion_dir: {theirs}\n")
    assert os.access(theirs, os.W_OK | os.X_OK)
    assert oneshot.conversion_directory(asked(), None).named_by == "the home directory"


def test_an_unusable_configuration_is_said_only_where_it_decides(host: Path) -> None:
    (host / "hyper2kvmd.yaml").write_text("conversion_dri: /x\n")
    with pytest.raises(BrokenInstallation):
        oneshot.conversion_directory(asked(), None)
    assert oneshot.conversion_directory(asked(Path("/x")), None).path == Path("/x")


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(InvalidInput) as caught:
        oneshot.conversion_directory(asked(), None)
    assert caught.value.code == "home-unknown"


def test_output_directory(host: Path) -> None:
    assert oneshot.output_directory(asked(), None).path == host
    assert oneshot.output_directory(asked(output_dir=Path("/yaml")), None).path == Path("/yaml")
    assert oneshot.output_directory(asked(output_dir=Path("/yaml")), Path("here")).path == host / "here"


def test_the_daemons_directories(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "hyper2kvmd.yaml").write_text("conversion_dir: /fast\noutput_dir: /srv/images\n")
    assert oneshot.daemon_directories(asked()) == oneshot.DaemonDirectories(Path("/fast"), Path("/srv/images"))
    named = asked(conversion_dir=Path("/a"), output_dir=Path("/b"))
    assert oneshot.daemon_directories(named) == oneshot.DaemonDirectories(Path("/a"), Path("/b"))
    (host / "hyper2kvmd.yaml").write_text("output_dri: /x\n")
    assert oneshot.daemon_directories(asked()) is None, "the daemon does not start with it"
    (host / "hyper2kvmd.yaml").write_text("output_dir: /srv/images\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert oneshot.daemon_directories(asked()) is None, "its configuration is not for this user"


@pytest.mark.parametrize("installed", [True, False])
def test_a_daemon_without_a_configuration(installed: bool, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = host / "spool"
    defaults = config.DaemonConfig(spool_dir=spool)
    monkeypatch.setattr(config, "DaemonConfig", lambda: defaults)
    if installed:
        spool.mkdir()
    found = oneshot.daemon_directories(asked())
    assert found == (oneshot.DaemonDirectories(defaults.conversion_dir, defaults.output_dir) if installed else None)


ASK = """
import sys
from pathlib import Path
from hyper2kvmd import config, progress
from hyper2kvmd.host import run
from hyper2kvmd.cli import oneshot
config.DEFAULT_PATH, run.SEARCH_PATH = Path(sys.argv[1]), sys.argv[2]
print(oneshot.helper())
"""
ROOT = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
SOMEBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
WITHOUT_SETUID = ["setpriv", "--no-new-privs"]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that somebody else may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.root
@pytest.mark.parametrize(
    ("who", "sudo", "configured", "socket"),
    [
        (SOMEBODY, True, "helper: /run/h.sock\nstate_dir: /\n", False),
        (SOMEBODY, True, "helper: /run/h.sock\nstate_dir: /nowhere\n", False),
        (SOMEBODY, True, "helper: /run/h.sock\nstate_dir: {own}\n", True),
        (SOMEBODY, True, "helper: [sudo, -n, /x]\nstate_dir: {own}\n", False),
        (SOMEBODY, False, "helper: /run/h.sock\nstate_dir: /\n", True),
        (SOMEBODY, False, "helper: [sudo, -n, /x]\n", False),
        (SOMEBODY, False, None, False),
        (WITHOUT_SETUID, True, "helper: /run/h.sock\nstate_dir: /\n", True),
        (WITHOUT_SETUID, True, "helper: [sudo, -n, /x]\n", False),
        (WITHOUT_SETUID, True, None, False),
        (ROOT, True, "helper: /run/h.sock\nstate_dir: {own}\n", False),
        (ROOT, False, "helper: /run/h.sock\nstate_dir: {own}\n", False),
        (ROOT, False, "no: configuration\n", False),
    ],
)
def test_the_helpers_socket_is_for_whom_sudo_does_not_serve(
    shared: Path, who: list[str], sudo: bool, configured: str | None, socket: bool
) -> None:
    programs, own, file = (shared / name for name in ("bin", "own", "hyper2kvmd.yaml"))
    programs.mkdir()
    own.mkdir()
    if who is SOMEBODY and os.geteuid() == 0:
        os.chown(own, 65534, 65534)
    if sudo:
        (programs / "sudo").touch(0o755)
    if configured is not None:
        file.write_text(configured.format(own=own))
    command = [*who, sys.executable, "-c", ASK, str(file), str(programs)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    assert (said == "/run/h.sock\n") == socket


WORK = """
import signal, sys, time
from pathlib import Path
from hyper2kvmd.cli import oneshot
from hyper2kvmd.errors import Interrupted
from hyper2kvmd.host.workspace import working_folder
try:
    with oneshot.interruptible(), working_folder(Path(sys.argv[1]), "vm", "1") as folder:
        (folder / "disk").write_bytes(bytes(1 << 20))
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            for again in oneshot.STOPPING:
                signal.raise_signal(again)
            print("cleaned up", flush=True)
except Interrupted as failure:
    print(failure.message, flush=True)
    sys.exit(failure.exit_code)
"""


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_folder_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["vm.1"]
        process.send_signal(number)
        assert process.stdout.read() == f"cleaned up\nthe migration was stopped by {number.name}\n"
        assert process.wait(30) == 130
    assert list((tmp_path / "work").iterdir()) == []


RUN_OF_ITS_OWN = """
import sys, time
from pathlib import Path
from hyper2kvmd.host.workspace import working_folder
with working_folder(Path(sys.argv[1]), "web01", sys.argv[2]) as folder:
    (folder / "disk1.qcow2").write_bytes(bytes(1 << 20))
    print("ready", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def a_run(conversion_dir: Path, job_id: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUN_OF_ITS_OWN, str(conversion_dir), job_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.root
def test_the_next_run_removes_the_folders_of_killed_ones(tmp_path: Path) -> None:
    """And no others: not that of a run that still works, not those of the daemon's jobs, nothing else."""
    work, said = tmp_path / "work", list[progress.Event]()
    with a_run(work, "20260102T030405Z-1"), a_run(work, "17"):
        pass
    for name in ("notes", "web01.20260102T030405Z-1.old"):
        (work / name).mkdir()
    with a_run(work, "20260102T030405Z-2"):
        with pytest.raises(MigrationFailed) as caught:
            oneshot.migrate(oneshot.order(Parsed(asked()), work, tmp_path), said.append)
        assert caught.value.code == "source-missing"
        left = {path.name for path in work.iterdir()}
    assert left == {"web01.17", "web01.20260102T030405Z-2", "notes", "web01.20260102T030405Z-1.old"}
    warned = [event.message for event in said if isinstance(event, progress.Warned)]
    assert warned == [f"removed {work}/web01.20260102T030405Z-1: its run was killed"]


@pytest.mark.root
def test_a_leftover_that_cannot_be_removed_is_only_reported(tmp_path: Path) -> None:
    work, said = tmp_path / "work", list[progress.Event]()
    with a_run(work, "20260102T030405Z-1"):
        pass
    mount = work / "web01.20260102T030405Z-1" / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", mount], check=True)
    try:
        with pytest.raises(MigrationFailed) as caught:
            oneshot.migrate(oneshot.order(Parsed(asked()), work, tmp_path), said.append)
    finally:
        subprocess.run(["umount", mount], check=True)
    assert caught.value.code == "source-missing"
    assert any(isinstance(event, progress.Warned) and "cannot be removed" in event.message for event in said)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with oneshot.interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("configured", "keys", "refused"),
    [
        (None, {"win_disk": "virtio"}, True),
        ("space_reserve: 1G", {"win_disk": "scsi"}, True),
        ("virtio_win: /iso", {"win_disk": "scsi"}, False),
        (None, {"win_disk": "virtio", "virtio_win": Path("/iso")}, False),
        (None, {"win_disk": "sata"}, False),
        (None, {}, False),
    ],
)
def test_a_bus_whose_driver_can_come_from_nowhere_is_refused(
    host: Path, configured: str | None, keys: dict[str, object], refused: bool
) -> None:
    if configured:
        (host / "hyper2kvmd.yaml").write_text(configured)
    found = oneshot.drivers_missing(asked().with_changes(**keys))
    assert (found is not None and found.key == "win_disk") == refused
