"""The files that a package installs, judged by systemd's and sudo's own tools in a temporary root."""

from __future__ import annotations

import pwd
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "systemd"
VENDOR = Path("/usr/lib/systemd/system")
HARDENED = PROJECT / "packaging/hyper2kvmd.service.d/hardened.conf"
NEEDED = (
    *("modprobe@.service", "network.target", "remote-fs.target"),
    *("multi-user.target", "sockets.target", "timers.target"),
)
BASIC = ("sysinit.target", "basic.target", "shutdown.target", "time-set.target", "time-sync.target")

IMPLIES_NO_NEW_PRIVILEGES = re.compile(
    "^(NoNewPrivileges|LockPersonality|MemoryDenyWriteExecute|PrivateDevices|ProtectClock|ProtectHostname"
    "|ProtectKernel.*|Restrict(AddressFamilies|FileSystems|Namespaces|Realtime|SUIDSGID)|SystemCall.*|DynamicUser)="
)


def tool(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with our files where a package puts them, and the programs that they start."""
    places = {
        "usr/lib/systemd/system": [*UNITS.iterdir(), *(VENDOR / name for name in (*NEEDED, *BASIC))],
        "usr/lib/sysusers.d": [*(PROJECT / "packaging/sysusers.d").iterdir()],
        "usr/lib/tmpfiles.d": [*(PROJECT / "packaging/tmpfiles.d").iterdir()],
        "usr/bin": [],
        "usr/libexec/hyper2kvm": [],
        "bin": [Path("/bin/kill")],
    }
    (tmp_path / "etc").mkdir()
    for folder, files in places.items():
        (tmp_path / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / folder)
    for program in ("bin/hyper2kvmd", "bin/h2kvmctl", "libexec/hyper2kvm/helper"):
        shutil.copy("/usr/bin/true", tmp_path / "usr" / program)
    return tmp_path


@pytest.fixture
def hardened(root: Path) -> Path:
    """The same, with the drop-in for a daemon without sudo."""
    folder = root / "etc/systemd/system/hyper2kvmd.service.d"
    folder.mkdir(parents=True)
    shutil.copy(HARDENED, folder)
    return root


def verified(root: Path) -> subprocess.CompletedProcess[str]:
    names = sorted(path.name for path in UNITS.iterdir())
    return tool("systemd-analyze", "verify", f"--root={root}", "--man=no", *names)


def test_units_pass_verify(root: Path) -> None:
    result = verified(root)
    assert (result.returncode, result.stderr) == (0, "")


def test_verify_would_notice(root: Path) -> None:
    (root / "usr/bin/h2kvmctl").unlink()
    assert verified(root).returncode != 0


def exposed(root: Path, unit: str, limit: int) -> subprocess.CompletedProcess[str]:
    """systemd's judgement of a unit with its drop-ins, which ends with 0 up to `limit` tenths."""
    options = ("--offline=true", f"--root={root}", "--no-pager", f"--threshold={limit}")
    result = tool("systemd-analyze", "security", *options, unit)
    assert "Overall exposure level" in result.stdout, result.stderr
    return result


@pytest.mark.parametrize(
    ("unit", "limit"),
    [("hyper2kvmd.service", 65), ("hyper2kvm-cleanup.service", 10), ("hyper2kvm-helper@.service", 25)],
)
def test_exposure_stays_low(root: Path, unit: str, limit: int) -> None:
    result = exposed(root, unit, limit)
    assert result.returncode == 0, result.stdout[-300:]


def test_a_daemon_without_sudo_is_exposed_less(hardened: Path) -> None:
    result = exposed(hardened, "hyper2kvmd.service", 15)
    assert result.returncode == 0, result.stdout[-300:]


def test_the_drop_in_is_what_lowers_it(root: Path) -> None:
    assert exposed(root, "hyper2kvmd.service", 15).returncode != 0


def test_the_hardened_daemon_passes_verify(hardened: Path) -> None:
    result = verified(hardened)
    assert (result.returncode, result.stderr) == (0, "")


def settings(unit: str) -> list[str]:
    return [line for line in (UNITS / unit).read_text().splitlines() if "=" in line and not line.startswith("#")]


def test_nothing_in_the_daemons_unit_disables_sudo() -> None:
    assert [line for line in settings("hyper2kvmd.service") if IMPLIES_NO_NEW_PRIVILEGES.match(line)] == []


def test_the_daemons_unit_says_what_the_daemon_relies_on() -> None:
    lines = set(settings("hyper2kvmd.service"))
    assert {
        "Type=notify",
        "NotifyAccess=main",
        "TimeoutStartSec=10min",
        "WatchdogSec=60",
        "KillMode=mixed",
        "Restart=on-failure",
        "RestartPreventExitStatus=78",
        "OOMPolicy=continue",
        "OOMScoreAdjust=500",
        "User=hyper2kvm",
        "Group=hyper2kvm",
    } <= lines
    assert {"OnCalendar=daily", "Persistent=true"} <= set(settings("hyper2kvm-cleanup.timer"))


def test_the_clean_up_sees_the_users_of_the_host() -> None:
    """With users of its own, nobody's directory is a submitter's, so their drafts would stay."""
    assert not any(line.startswith("PrivateUsers=") for line in settings("hyper2kvm-cleanup.service"))


def test_connections_cannot_stop_the_helpers_socket_for_good() -> None:
    """systemd's own limit to their rate would; how many there are at once is limited instead."""
    lines = set(settings("hyper2kvm-helper.socket"))
    assert {"Accept=yes", "TriggerLimitIntervalSec=0", "MaxConnections=64"} <= lines
    assert "CollectMode=inactive-or-failed" in settings("hyper2kvm-helper@.service")


def test_a_daemon_without_sudo_may_still_confine_its_tools() -> None:
    """A filter without Landlock would look like a kernel without it; without seccomp, QEMU boots no guest."""
    lines = [line for line in HARDENED.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    for call in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"):
        assert f" {call} " in f"{lines[-1]} "


def test_accounts_and_folders(root: Path) -> None:
    made = tool("systemd-sysusers", f"--root={root}")
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":") for line in (root / "etc/group").read_text().splitlines()}
    member_of = {name for name, fields in groups.items() if "hyper2kvm" in fields[3].split(",")}
    assert users["hyper2kvm"][5:] == ["/var/lib/hyper2kvm", "/usr/sbin/nologin"]
    assert member_of == {"hyper2kvm-submit", "kvm", "libvirt"}

    created = tool("systemd-tmpfiles", f"--root={root}", "--create")
    assert created.returncode == 0, created.stderr
    owner, own = int(users["hyper2kvm"][2]), int(groups["hyper2kvm"][2])
    submit = int(groups["hyper2kvm-submit"][2])
    expected = {
        "var/spool/hyper2kvm": (0o750, submit),
        "var/spool/hyper2kvm/incoming": (0o3770, submit),
        "var/spool/hyper2kvm/active": (0o700, own),
        "var/spool/hyper2kvm/done": (0o2750, submit),
        "var/spool/hyper2kvm/failed": (0o2750, submit),
        "var/spool/hyper2kvm/rejected": (0o2750, submit),
        "var/lib/hyper2kvm": (0o751, own),
        "var/lib/hyper2kvm/conversions": (0o700, own),
        "var/lib/hyper2kvm/images": (0o751, own),
    }
    for name, (mode, group) in expected.items():
        status = (root / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, group), name


def test_submitters_drop_files_but_touch_nobody_elses(root: Path) -> None:
    """With real accounts: any two users of this host will do."""
    tool("systemd-sysusers", f"--root={root}")
    tool("systemd-tmpfiles", f"--root={root}", "--create")
    group = next(
        int(line.split(":")[2])
        for line in (root / "etc/group").read_text().splitlines()
        if line.startswith("hyper2kvm-submit:")
    )
    for folder in (root, *root.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    incoming = root / "var/spool/hyper2kvm/incoming"

    def as_user(name: str, *argv: str) -> int:
        user = pwd.getpwnam(name)
        return subprocess.run(
            argv, user=user.pw_uid, group=user.pw_gid, extra_groups=[group], stderr=subprocess.DEVNULL, check=False
        ).returncode

    assert as_user("daemon", "touch", str(incoming / "a.yaml")) == 0
    assert (incoming / "a.yaml").stat().st_gid == group
    assert as_user("nobody", "rm", "-f", str(incoming / "a.yaml")) != 0
    assert as_user("daemon", "touch", str(root / "var/spool/hyper2kvm/done/x")) != 0
    assert as_user("daemon", "ls", str(root / "var/spool/hyper2kvm/active")) != 0
    assert as_user("daemon", "ls", str(root / "var/lib/hyper2kvm/conversions")) != 0
