"""What the root helper refuses, asked through the real sudo by the real service user; and what it never does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.model.disks import Image
from tests.support.asking import ASKER, PROBE, ask, linear, mount_request, refusal
from tests.support.host import HELPER, REPOSITORY, as_service, give, make_disk
from tests.support.journals import copied_in_use
from tests.support.kernel import Kernel


def test_probe_and_mount(disk: Image, installed_helper: tuple[str, ...]) -> None:
    answer = ask(installed_helper, request=PROBE)
    assert answer["reply"]["fstypes"] == ["ext4"]
    assert answer["reply"]["loop"] is True
    answer = ask(installed_helper, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]])
    assert answer["mounts"] == 1, answer
    assert Kernel.now().clean


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "x",
        "[]",
        "null",
        "{}",
        '{"verb": "probe"}',
        '{"verb": "unmount", "job": "test"}',
        '{"verb": "probe", "job": "test", "fstypes": [], "uid": 0}',
        '{"verb": "probe", "job": "test", "fstypes": [], "job": "other"}',
        '{"verb": "probe", "job": "a b", "fstypes": []}',
        '{"verb": "probe", "job": "test\\n", "fstypes": []}',
        '{"verb": "probe", "job": 1, "fstypes": []}',
        '{"verb": "probe", "job": "test", "fstypes": ["proc"]}',
        '{"verb": "probe", "job": "test", "fstypes": [["ext4"]]}',
        '{"verb": "probe", "job": "test", "fstypes": {"ext4": 1}}',
        '{"verb": ["probe"], "job": "test", "fstypes": []}',
        "[" * 16_000,
        '{"verb": "probe", "job": "test", "fstypes": [' + "1" * 5000 + "]}",
        json.dumps(PROBE) + " " * 17_000,
    ],
)
def test_malformed_requests(installed_helper: tuple[str, ...], raw: str) -> None:
    answer = ask(installed_helper, raw=raw)
    if raw == "":  # a packet of nothing is what a closed socket looks like
        assert answer["mounts"] == 0
        return
    assert refusal(answer) == "bad-request"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"fstype": "proc"}, "bad-request"),
        ({"fstype": "ntfs3"}, "bad-request"),
        ({"fstype": "ext4,errors=panic"}, "bad-request"),
        ({"transport": "loop"}, "bad-request"),
        ({"read_only": 0}, "bad-request"),
        ({"table": []}, "bad-request"),
        ({"table": [linear({"fd": 0, "offset": 0})]}, "bad-request"),
        ({"table": [linear({"fd": True, "offset": 0, "length": 512})]}, "bad-request"),
        ({"table": [linear({"fd": 0, "offset": 0, "length": 512, "flags": 1})]}, "bad-request"),
        ({"table": [linear({"fd": 1, "offset": 0, "length": 512})]}, "bad-fd"),
        ({"table": [linear({"fd": -1, "offset": 0, "length": 512})]}, "bad-fd"),
        ({"table": [linear({"fd": 0, "offset": -512, "length": 1024})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 0, "length": 0})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 1, "length": 512})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 0, "length": 513})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 1 << 62, "length": 512})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 1 << 63, "length": 1 << 63})]}, "bad-range"),
        ({"table": [linear({"fd": 0, "offset": 0, "length": 1 << 40})]}, "bad-range"),
        (
            {
                "table": [
                    linear({"fd": 0, "offset": 0, "length": 1024}),
                    linear({"fd": 0, "offset": 512, "length": 512}),
                ]
            },
            "bad-range",
        ),
        (
            {
                "table": [
                    linear({"fd": 0, "offset": 512, "length": 512}),
                    linear({"fd": 0, "offset": 512, "length": 512}),
                ]
            },
            "bad-range",
        ),
        ({"nbd": [{"size": 512, "flags": 1}]}, "bad-request"),
        ({"transport": "nbd"}, "bad-request"),
        ({"options": "suid"}, "bad-request"),
        ({"uid": 0}, "bad-request"),
    ],
)
def test_mounts_that_are_refused(
    disk: Image, installed_helper: tuple[str, ...], changes: dict[str, object], code: str
) -> None:
    answer = ask(installed_helper, request=mount_request(disk, **changes), fds=[["rw", str(disk.disks[0].path)]])
    assert refusal(answer) == code, answer


LEGS = [{"fd": 0, "offset": at * 65536, "length": 65536} for at in range(2)]
LONGER = [LEGS[0], {**LEGS[1], "length": 131072}]


def stretch(kind: str, legs: list[dict[str, int]], chunk: int = 0) -> dict[str, object]:
    return {"table": [{"kind": kind, "chunk": chunk, "legs": legs}]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (stretch("raid5", LEGS), "bad-request"),
        (stretch("linear", LEGS), "bad-request"),
        (stretch("linear", []), "bad-request"),
        (stretch("mirror", LEGS[:1]), "bad-request"),
        (stretch("striped", LEGS[:1], 4096), "bad-request"),
        (
            stretch("mirror", [{**LEGS[0], "fd": 0, "offset": at * 512, "length": 512} for at in range(65)]),
            "bad-request",
        ),
        (stretch("mirror", LONGER), "bad-range"),
        (stretch("striped", LONGER, 4096), "bad-range"),
        (stretch("mirror", [LEGS[0], LEGS[0]]), "bad-range"),
        (stretch("mirror", LEGS, 4096), "bad-range"),
        (stretch("linear", LEGS[:1], 4096), "bad-range"),
        (stretch("striped", LEGS, 0), "bad-range"),
        (stretch("striped", LEGS, -4096), "bad-range"),
        (stretch("striped", LEGS, 2048), "bad-range"),
        (stretch("striped", LEGS, 4097), "bad-range"),
        (stretch("striped", LEGS, 12288), "bad-range"),
        (stretch("striped", LEGS, 131072), "bad-range"),
        ({"table": [{"kind": "linear", "chunk": 0, "legs": LEGS[:1], "crypt": 1}]}, "bad-request"),
        ({"table": [{"kind": "linear", "chunk": 0, "legs": 1}]}, "bad-request"),
    ],
)
def test_stretches_that_are_refused(
    disk: Image, installed_helper: tuple[str, ...], changes: dict[str, object], code: str
) -> None:
    answer = ask(installed_helper, request=mount_request(disk, **changes), fds=[["rw", str(disk.disks[0].path)]])
    assert refusal(answer) == code, answer


def decrypted(**changes: object) -> dict[str, object]:
    return {"key": 1, "cipher": "aes-xts-plain64", "sector": 512, "iv": 0, **changes}


@pytest.mark.parametrize(
    ("crypt", "key", "code"),
    [
        ([decrypted()], ["rw", "DISK"], "bad-fd"),
        ([decrypted()], ["pipe", ""], "bad-fd"),
        ([decrypted()], ["r", "/dev/zero"], "bad-fd"),
        ([decrypted()], ["unsealed", "64"], "bad-fd"),
        ([decrypted()], ["sealed", "0"], "bad-fd"),
        ([decrypted()], ["sealed", "16"], "bad-fd"),
        ([decrypted()], ["sealed", "65"], "bad-fd"),
        ([decrypted(cipher="aes-cbc-essiv:sha256")], ["sealed", "64"], "bad-fd"),
        ([decrypted(key=0)], ["sealed", "64"], "bad-fd"),
        ([decrypted(key=2)], ["sealed", "64"], "bad-fd"),
        ([decrypted(key=-1)], ["sealed", "64"], "bad-fd"),
        ([], ["sealed", "64"], "bad-fd"),
        ([decrypted(), decrypted()], ["sealed", "64"], "bad-request"),
        ([decrypted(cipher="cipher_null-ecb")], ["sealed", "64"], "bad-request"),
        ([decrypted(cipher="aes-xts-plain64 00 0 /dev/vda 0")], ["sealed", "64"], "bad-request"),
        ([decrypted(cipher="capi:xts(aes)-plain64")], ["sealed", "64"], "bad-request"),
        ([decrypted(sector=256)], ["sealed", "64"], "bad-request"),
        ([decrypted(iv="0")], ["sealed", "64"], "bad-request"),
        ([decrypted(iv=-1)], ["sealed", "64"], "bad-range"),
        ([decrypted(iv=1 << 62)], ["sealed", "64"], "bad-range"),
        ([decrypted(iv=1, sector=4096)], ["sealed", "64"], "bad-range"),
        ([decrypted(length=512)], ["sealed", "64"], "bad-request"),
    ],
)
def test_encryptions_that_are_refused(
    disk: Image, installed_helper: tuple[str, ...], crypt: list[dict[str, object]], key: list[str], code: str
) -> None:
    path = str(disk.disks[0].path)
    fds = [["rw", path], [key[0], key[1].replace("DISK", path)]]
    assert refusal(ask(installed_helper, request=mount_request(disk, crypt=crypt), fds=fds)) == code


def test_a_length_that_is_no_whole_encrypted_sectors(disk: Image, installed_helper: tuple[str, ...]) -> None:
    request = mount_request(disk, table=[linear({"fd": 0, "offset": 0, "length": 4096 + 512})])
    request["crypt"] = [decrypted(sector=4096)]
    fds = [["rw", str(disk.disks[0].path)], ["sealed", "64"]]
    assert refusal(ask(installed_helper, request=request, fds=fds)) == "bad-range"


def test_a_key_is_in_no_answer(disk: Image, installed_helper: tuple[str, ...]) -> None:
    """What is decrypted with a wrong key is no file system; without dm-crypt it does not come to that."""
    fds = [["rw", str(disk.disks[0].path)], ["sealed", "64"]]
    answer = ask(installed_helper, request=mount_request(disk, crypt=[decrypted()]), fds=fds)
    assert refusal(answer) in ("unsupported", "mount-failed")
    assert "00" * 16 not in json.dumps(answer)


@pytest.mark.parametrize(
    "fds",
    [
        [],
        [["rw", "DISK"], ["rw", "DISK"]],
        [["pipe", ""]],
        [["tcp", ""]],
        [["r", "/dev/zero"]],
        [["rw", "/dev/null"]],
        [["r", "/var/tmp"]],
        [["r", "DISK"]],
        [["w", "DISK"]],
        [["append", "DISK"]],
        [["path", "DISK"]],
    ],
)
def test_descriptors_that_are_refused(disk: Image, installed_helper: tuple[str, ...], fds: list[list[str]]) -> None:
    named = [[kind, path.replace("DISK", str(disk.disks[0].path))] for kind, path in fds]
    answer = ask(installed_helper, request=mount_request(disk), fds=named)
    assert refusal(answer) == "bad-fd", answer


def test_too_many_descriptors(disk: Image, installed_helper: tuple[str, ...]) -> None:
    answer = ask(installed_helper, request=mount_request(disk), fds=[["r", str(disk.disks[0].path)]] * 100)
    assert refusal(answer) == "bad-request"


def test_a_probe_takes_no_descriptor(disk: Image, installed_helper: tuple[str, ...]) -> None:
    assert refusal(ask(installed_helper, request=PROBE, fds=[["r", str(disk.disks[0].path)]])) == "bad-fd"


@pytest.mark.usefixtures("installed_helper")
def test_the_helper_itself_takes_no_argument() -> None:
    done = subprocess.run(["/usr/bin/python3", "-IS", HELPER, "x"], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stderr) == (2, b"hyper2kvm helper: no argument is taken\n")


@pytest.mark.parametrize("channel", ["tcp", "stream"])
def test_only_the_right_kind_of_stdin(installed_helper: tuple[str, ...], channel: str) -> None:
    answer = ask(installed_helper, request=PROBE, channel=channel)
    assert (answer["reply"], answer["status"]) == (None, 2)
    assert "SOCK_SEQPACKET" in answer["output"]


def test_no_socket_at_all(installed_helper: tuple[str, ...]) -> None:
    done = subprocess.run(as_service(*installed_helper), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert "hyper2kvm helper: " in done.stderr


def test_a_socket_made_by_another_user(installed_helper: tuple[str, ...]) -> None:
    """Root's own socket in the service user's hands does not make it root."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        channel = [ours.fileno(), theirs.fileno()]
        specification = json.dumps({"helper": installed_helper, "request": PROBE, "channel": channel})
        done = subprocess.run(
            as_service(sys.executable, ASKER, specification),
            pass_fds=channel,
            capture_output=True,
            text=True,
        )
    answer = json.loads(done.stdout)
    assert (answer["reply"], answer["status"]) == (None, 2)
    assert "sudo was run by uid" in answer["output"]


@pytest.mark.usefixtures("installed_helper")
def test_not_run_by_root() -> None:
    answer = ask(("/usr/bin/python3", "-IS", str(HELPER)), request=PROBE)
    assert (answer["reply"], answer["status"]) == (None, 2)
    assert "not run as root" in answer["output"]


@pytest.mark.parametrize(
    "limits",
    [
        {"RLIMIT_NOFILE": 8},
        {"RLIMIT_FSIZE": 0},
        {"RLIMIT_NPROC": 0},
        {"RLIMIT_AS": 30_000_000},
        {"RLIMIT_STACK": 100_000},
        {"RLIMIT_MEMLOCK": 0},
        {"RLIMIT_SIGPENDING": 0},
        {"RLIMIT_CORE": 0},
    ],
)
def test_tiny_limits_end_cleanly(disk: Image, installed_helper: tuple[str, ...], limits: dict[str, int]) -> None:
    answer = ask(installed_helper, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]], limits=limits)
    if answer["reply"] is None:
        assert answer["status"] != 0 and str(HELPER) not in answer["output"], "it ended in a traceback"
    else:
        assert answer["reply"].get("ok") is True or set(answer["reply"]) == {"error", "message"}
        assert answer["mounts"] == (1 if "ok" in answer["reply"] else 0)
    assert Kernel.now().clean


def test_the_environment_is_ignored(installed_helper: tuple[str, ...], service_folder: Path) -> None:
    (service_folder / "json.py").write_text("raise SystemExit('taken over')\n")
    environment = {"PYTHONPATH": str(service_folder), "PYTHONSTARTUP": str(service_folder / "json.py"), "SUDO_UID": "0"}
    assert ask(installed_helper, request=PROBE, environment=environment)["reply"]["ok"] is True


def test_each_request_is_logged_on_one_line(installed_helper: tuple[str, ...]) -> None:
    device = Path("/dev/log")
    if device.exists():
        before = None
        device.rename("/dev/log.h2k-test")
    else:
        before = device
    lines: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(device))
        device.chmod(0o666)
        log.settimeout(10)
        try:
            listener = threading.Thread(target=lambda: lines.append(log.recv(65536).decode()))
            listener.start()
            evil = {
                "verb": "mount",
                "job": "test",
                "transport": "file",
                "fstype": "ext4\nforged: line",
                "read_only": True,
                "table": [],
                "crypt": [],
                "nbd": [],
            }
            done = subprocess.run(
                [
                    sys.executable,
                    ASKER,
                    json.dumps({"helper": ["/usr/bin/python3", "-IS", str(HELPER)], "request": evil}),
                ],
                capture_output=True,
            )
            assert done.returncode == 0
            listener.join()
        finally:
            device.unlink()
            if before is None:
                Path("/dev/log.h2k-test").rename(device)
    assert "hyper2kvm-helper[" in lines[0]
    assert "uid=0 mount job=test ext4\\x0aforged: line" in lines[0]
    assert "bad-request" in lines[0]
    assert "\n" not in lines[0].rstrip("\0\n")


def test_the_helper_imports_nothing_of_ours() -> None:
    text = (REPOSITORY / "hyper2kvmd" / "helper" / "helper.py").read_text()
    assert text.startswith("#!/usr/bin/python3 -IS\n")
    imported = {
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= sys.stdlib_module_names


# ---------------------------------------------------------------- what came back, forged, replayed and abused


def test_a_second_request_on_the_same_channel_is_never_answered(disk: Image, installed_helper: tuple[str, ...]) -> None:
    answer = ask(installed_helper, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]], again=1)
    assert (answer["mounts"], answer["more"]) == (1, [])
    assert Kernel.now().clean


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        (["folder", "/proc"], "bad-fd"),
        (["unconnected", ""], "bad-fd"),
        (["memory", "1048576"], "bad-range"),
        (["sealed", "64"], "bad-range"),
        (["r", "/proc/self/mem"], "bad-range"),
        (["r", "/sys/kernel/notes"], "bad-range"),
    ],
    ids=repr,
)
def test_forged_handles(disk: Image, installed_helper: tuple[str, ...], forged: list[str], code: str) -> None:
    """Things that are no disk, most of them regular files by their mode."""
    answer = ask(installed_helper, request=mount_request(disk, read_only=True), fds=[forged])
    assert refusal(answer) == code, answer


def test_a_disk_that_the_caller_may_only_read_is_never_written(
    disk: Image, installed_helper: tuple[str, ...], service_folder: Path
) -> None:
    """Root's file, open for reading: it is mounted read-only, and its holder cannot make it writable."""
    path = service_folder / "roots.raw"
    path.write_bytes(disk.disks[0].path.read_bytes())
    path.chmod(0o644)
    before = path.read_bytes()
    fds = [["r", str(path)]]
    assert refusal(ask(installed_helper, request=mount_request(disk), fds=fds)) == "bad-fd"
    answer = ask(
        installed_helper,
        request=mount_request(disk, read_only=True),
        fds=fds,
        handed=["write", "clear read-only", "write"],
    )
    assert answer["mounts"] == 1
    assert answer["handed"] == {"write": "Read-only file system", "clear read-only": "Operation not permitted"}
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["ext4", "xfs", "btrfs"])
def test_a_read_only_mount_replays_no_journal(
    installed_helper: tuple[str, ...], service_folder: Path, content: str
) -> None:
    running = make_disk(service_folder / "running.raw", (content,))
    dirty = give(copied_in_use(running, service_folder / "dirty.raw"))
    before = dirty.disks[0].path.read_bytes()
    request = mount_request(dirty, fstype=content, read_only=True)
    assert refusal(ask(installed_helper, request=request, fds=[["rw", str(dirty.disks[0].path)]])) == "journal-dirty"
    assert dirty.disks[0].path.read_bytes() == before


@pytest.mark.parametrize("flag", ["clear nosuid", "clear nodev", "clear noexec"])
def test_flags_of_a_mount_stay(disk: Image, installed_helper: tuple[str, ...], flag: str) -> None:
    fds = [["rw", str(disk.disks[0].path)]]
    answer = ask(installed_helper, request=mount_request(disk), fds=fds, handed=[flag])
    assert answer["handed"] == {flag: "Operation not permitted"}


@pytest.mark.parametrize(
    ("trick", "outcome"), [("run", "Permission denied"), ("open a device", "Permission denied"), ("leave", "no")]
)
def test_what_a_mount_gives_away(disk: Image, installed_helper: tuple[str, ...], trick: str, outcome: str) -> None:
    fds = [["rw", str(disk.disks[0].path)]]
    answer = ask(installed_helper, request=mount_request(disk), fds=fds, handed=[trick])
    assert answer["handed"] == {trick: outcome}


# ---------------------------------------------------------------- where and how it is started


@pytest.mark.parametrize(
    "surroundings",
    [
        {"cwd": "deleted"},
        {"closed": [1]},
        {"closed": [2]},
        {"closed": [1, 2]},
        {"environment": {"LD_PRELOAD": "/nonexistent.so", "LD_LIBRARY_PATH": "/var/tmp", "TMPDIR": "/nonexistent"}},
        {"environment": {"PYTHONHOME": "/nonexistent", "PYTHONINSPECT": "1", "PYTHONMALLOC": "debug"}},
        {"environment": {"SUDO_UID": "0", "SUDO_GID": "0", "SUDO_USER": "root"}},
        {"environment": {"PATH": "/nonexistent", "IFS": "/", "LC_ALL": "../../x", "TZ": "/dev/zero"}},
    ],
    ids=repr,
)
def test_hostile_surroundings(disk: Image, installed_helper: tuple[str, ...], surroundings: dict[str, Any]) -> None:
    program = ("/usr/bin/sudo", *installed_helper[1:])
    answer = ask(program, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]], **surroundings)
    assert answer["mounts"] == 1, answer
    assert Kernel.now().clean


def test_closed_stdin(installed_helper: tuple[str, ...]) -> None:
    answer = ask(installed_helper, request=PROBE, closed=[0])
    assert (answer["reply"], answer["status"]) == (None, 2)
