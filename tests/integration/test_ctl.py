"""h2kvmctl as a process: what it prints, where, and the code that it ends with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ctl import PROJECT, configured, ctl
from tests.support.disks import sh
from tests.support.file_systems import file_system


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "web01.yaml"
    path.write_text("vmdk: exports/web01.vmdk\nno-grub: yes\n")
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("vmkd: x.vmdk\nmemory: lots\nvcenter: vc1\n")
    return path


def test_check_says_what_a_file_comes_to(good: Path, tmp_path: Path) -> None:
    result = ctl("check", good, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = {line.strip() for line in result.stdout.splitlines()}
    assert f"vmdk: {tmp_path}/exports/web01.vmdk" in lines
    assert "vm_name: web01" in lines
    assert "no_grub: true" in lines
    assert "memory: as the source machine  (default)" in lines
    assert f"output_dir: {tmp_path}  (from the current directory)" in lines


def test_check_shows_values_as_a_person_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "web01.yaml"
    path.write_text(
        "vmx: web01.vmx\nnetwork_map: {VM Network: lan, DMZ: 'bridge:br0'}\ndatastore_map: {ssd1: ds1}\n"
        "resize: [+1G, 50G]\nhooks: {before: notify}\n"
    )
    lines = [line.strip() for line in ctl("check", path, cwd=tmp_path).stdout.splitlines()]
    for expected in (
        "network_map: VM Network: lan, DMZ: bridge:br0",
        f"datastore_map: ssd1: {tmp_path}/ds1",
        "resize: +1G, 50G",
        "hooks: before: notify",
        "luks_keyfile: not set  (default)",
        "vmdk: not set  (default)",
    ):
        assert expected in lines


def test_check_lists_every_error_as_compilers_do(good: Path, bad: Path, tmp_path: Path) -> None:
    result = ctl("check", good, bad, cwd=tmp_path)
    assert result.returncode == 2
    places = [line.split(": ")[0] for line in result.stderr.splitlines()]
    assert places == [f"{bad}:1:1", f"{bad}:2:9", f"{bad}:3:1", f"{bad}"]
    assert f"{good}: valid" in result.stdout


def test_check_as_json(good: Path, bad: Path, tmp_path: Path) -> None:
    result = ctl("check", "--json", good, bad, cwd=tmp_path)
    first, second = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (2, "")
    assert (first["problems"], first["migration"]["vm_name"]) == ([], "web01")
    assert [(one["key"], one["line"]) for one in second["problems"]] == [
        ("vmkd", 1),
        ("memory", 2),
        ("vcenter", 3),
        ("vmdk", None),
    ]


@pytest.mark.parametrize("ending", [[], ["local"]])
def test_oneshot_refuses_what_check_refuses(bad: Path, tmp_path: Path, ending: list[str]) -> None:
    result = ctl("--config", bad, *ending, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 4
    assert not (tmp_path / ".cache").exists()
    as_json = json.loads(ctl("--json", "--config", bad, *ending, cwd=tmp_path).stdout)
    assert (as_json["error"]["code"], as_json["error"]["exit_code"]) == ("spec-invalid", 2)
    assert len(as_json["problems"]) == 4


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["check"], ["show", "zero"], ["show", "0"], ["--config", "x.yaml", "list"], ["local"], []],
)
def test_usage_errors_are_2(arguments: list[str], tmp_path: Path) -> None:
    assert ctl(*arguments, cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense", "--json"],
        ["--json", "check"],
        ["show", "zero", "--json"],
        ["--json", "--config"],
        ["show", "--json"],
    ],
)
def test_usage_errors_as_json(arguments: list[str], tmp_path: Path) -> None:
    result = ctl(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["exit_code"]) == ("usage", 2)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    result = ctl("--config", tmp_path / "missing.yaml", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert str(tmp_path / "missing.yaml") in line
    assert "file-unreadable" in line


COMMANDS = [["list"], ["status"], ["show", "1"], ["logs", "1"], ["watch", "1"], ["cancel", "1"], ["retry", "1"]]
COMMANDS += [["hold", "1"], ["release", "1"], ["priority", "1", "9"], ["pause"], ["resume"], ["drain"], ["batches"]]
COMMANDS += [["batch", "wave"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_a_daemon(command: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "control.sock"
    result = ctl(*command, "--socket", missing, cwd=tmp_path)
    assert result.returncode == 75
    (line,) = result.stderr.splitlines()
    assert str(missing) in line
    assert "systemctl start hyper2kvmd" in line
    answer = json.loads(ctl(*command, "--json", "--socket", missing, cwd=tmp_path).stdout)
    assert answer["error"] == {
        "code": "daemon-unreachable",
        "message": answer["error"]["message"],
        "hint": answer["error"]["hint"],
        "kind": "retry",
        "exit_code": 75,
    }


def test_a_dead_daemons_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    result = ctl("list", "--socket", tmp_path / "s", cwd=tmp_path)
    assert (result.returncode, "Connection refused" in result.stderr) == (75, True)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A program on a socket that says the same to whoever comes: not a daemon, or a sick one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def http(status: str, body: dict[str, Any] | str) -> bytes:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


PROBLEM = {"code": "job-unknown", "message": "there is no job 7\x1b[2J", "hint": "List the jobs", "kind": "permanent"}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"", 75, "daemon-silent"),
        (b"SSH-2.0-OpenSSH\r\n", 75, "daemon-silent"),
        (http("500 Internal Server Error", "oops"), 1, "HTTP status 500"),
        (http("404 Not Found", {"problems": [PROBLEM]}), 1, "there is no job 7\ufffd[2J. List the jobs. [job-unknown]"),
        (http("409 Conflict", {"problems": [{**PROBLEM, "code": "job-state"}]}), 2, "[job-state]"),
        (http("503 Service Unavailable", {"problems": [{**PROBLEM, "kind": "retry"}]}), 75, "[job-unknown]"),
        (http("422 Unprocessable", {"problems": [{**PROBLEM, "line": 3, "column": 5}]}), 2, "3:5: there is no job"),
        (http("200 OK", "{}"), 78, "another version"),
        (http("200 OK", "[]"), 1, "there is no job 7. Run `h2kvmctl list`"),
    ],
)
def test_answers_of_a_sick_daemon(answer: bytes, code: int, said: str, tmp_path: Path) -> None:
    with answering(tmp_path / "s", answer):
        result = ctl("show", "7", "--socket", tmp_path / "s", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


FORBIDDEN = """
import os, sys
from pathlib import Path
from hyper2kvmd.client import Client
from hyper2kvmd.errors import Failure
def ask(path):
    try:
        Client(Path(path)).status()
    except Failure as failure:
        return f"{failure.exit_code} {failure}"
ask("/missing")  # whatever is imported late must be imported before this user may no longer read it
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(ask(sys.argv[1]))
"""


def test_a_socket_of_others(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 1)
    with answering(tmp_path / "s", b""):
        (tmp_path / "s").chmod(0o660)
        command = [sys.executable, "-c", FORBIDDEN, str(tmp_path / "s")]
        said = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=True).stdout
    assert said.startswith("2 this user may not use the control socket")
    assert "group hyper2kvm" in said


def test_a_reader_that_leaves(good: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hyper2kvmd.cli.ctl", "check", "--json", str(good)]
    result = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=PROJECT, timeout=60, check=False
    )
    os.close(writer)
    assert "Traceback" not in result.stderr
    assert result.returncode != 0


def small_migration(tmp_path: Path) -> Path:
    sh("qemu-img", "create", "-q", "-f", "vmdk", tmp_path / "disk.vmdk", "16M")
    path = tmp_path / "data.yaml"
    path.write_text(f"vmdk: {tmp_path}/disk.vmdk\n")
    return path


@pytest.mark.parametrize("words", [("plan",), ("--dry-run", "--config")])
def test_a_plan_writes_nothing(words: tuple[str, ...], tmp_path: Path) -> None:
    file = small_migration(tmp_path)
    before = set(tmp_path.rglob("*"))
    result = ctl(
        *words, file, f"--output-dir={tmp_path}/new/out", f"--conversion-dir={tmp_path}/new/work", cwd=tmp_path
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before


def test_a_plan_shows_each_warning_once(tmp_path: Path) -> None:
    file = small_migration(tmp_path)
    file.write_text(f"{file.read_text()}network_map: {{a: b}}\nverbose: 2\n")
    result = ctl("plan", file, cwd=tmp_path)
    assert (result.stdout.count("network-unknown"), result.stdout.count("verbose has no effect")) == (1, 1)
    answer = ctl("plan", "--json", file, cwd=tmp_path)
    assert answer.stderr.count("network-unknown") == 1
    assert "network-unknown" in [one["code"] for one in json.loads(answer.stdout)["plan"]["concerns"]]


def test_the_warnings_of_a_plan_that_fails_are_shown(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("vmdk: absent.vmdk\nverbose: 2\n")
    result = ctl("plan", tmp_path / "data.yaml", cwd=tmp_path)
    assert "[source-missing]" in result.stderr and "verbose has no effect" in result.stdout


def test_files_are_merged_and_errors_name_theirs(tmp_path: Path) -> None:
    small_migration(tmp_path)
    base, run = tmp_path / "base.yaml", tmp_path / "run.yaml"
    base.write_text("workdir: ~/work\nverbose: 2\nmemory: 512\ndry_run: false\n")
    run.write_text("input: disk.vmdk\nmemory: 1024\n")
    result = ctl("check", "--merge", base, run, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"conversion_dir: {tmp_path}/work" in result.stdout and "memory: 1024" in result.stdout
    assert "note: verbose has no effect here" in result.stdout
    both = [word for file in (base, run) for word in ("--config", str(file))]
    planned = json.loads(ctl("--json", "--dry-run", *both, cwd=tmp_path).stdout)
    assert planned["order"]["migration"]["memory"] == 1024
    assert [note["code"] for note in planned["order"]["notes"]] == ["key-without-effect"]
    assert (
        planned["plan"]["disks"] == json.loads(ctl("plan", "--json", base, run, cwd=tmp_path).stdout)["plan"]["disks"]
    )
    base.write_text("memory: much\n")
    run.write_text("vmdk: disk.vmdk\nvcpus: 0\n")
    result = ctl(*both, cwd=tmp_path)
    assert result.returncode == 2
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{base}:1:9", f"{run}:2:8"]


def test_a_failure_in_a_batch_does_not_stop_it(tmp_path: Path) -> None:
    small_migration(tmp_path)
    file = tmp_path / "rack.yaml"
    file.write_text("guest: none\nvms:\n- vmdk: none.vmdk\n- vmdk: disk.vmdk\n- vmdk: absent.vmdk\n")
    result = ctl("--config", file, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("[source-missing]") == 2
    assert "2 of 3 machines failed" in result.stdout
    assert (tmp_path / "disk.qcow2").exists()
    results = json.loads(ctl("--json", "--dry-run", "--config", file, cwd=tmp_path).stdout)
    assert [one["vm_name"] for one in results] == ["none", "disk", "absent"]
    assert [one.get("error", {}).get("code") for one in results] == [
        "source-missing",
        "output-exists",
        "source-missing",
    ]
    checked = json.loads(ctl("check", "--json", file, cwd=tmp_path).stdout)
    assert [one["migration"]["vm_name"] for one in checked] == ["none", "disk", "absent"]
    valid = [line for line in ctl("check", file, cwd=tmp_path).stdout.splitlines() if line.endswith(": valid")]
    assert valid == [f"{file}: {name}: valid" for name in ("none", "disk", "absent")]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[dict[Path, Path]]:
    """Mounts that show the configuration of a daemon: its output directory is `images`."""
    (tmp_path / "images").mkdir()
    with configured(tmp_path, output_dir=tmp_path / "images", conversion_dir=tmp_path / "fast") as mounts:
        yield mounts


@pytest.mark.parametrize("words", [("plan",), ("--dry-run", "--config")])
def test_a_plan_shows_what_the_daemon_would_do(
    words: tuple[str, ...], daemon: dict[Path, Path], tmp_path: Path
) -> None:
    file, images = small_migration(tmp_path), tmp_path / "images"
    shown = ctl(*words, file, cwd=tmp_path, mounts=daemon).stdout.splitlines()
    assert f"result         {tmp_path}/data.qcow2" in shown
    assert f"by the daemon  converted in {tmp_path}/fast" in shown
    assert f"by the daemon  {images}/data.qcow2" in shown
    (images / "data.qcow2").touch()
    shown = ctl(*words, file, cwd=tmp_path, mounts=daemon).stdout.splitlines()
    assert f"by the daemon  {images}/data.qcow2, which already exists: the daemon will refuse this migration" in shown
    answer = json.loads(ctl("--json", *words, file, cwd=tmp_path, mounts=daemon).stdout)
    assert answer["daemon"] == {"conversion_dir": f"{tmp_path}/fast", "output_dir": str(images)}
    checked = ctl("check", file, cwd=tmp_path, mounts=daemon).stdout
    assert f"output_dir: {tmp_path}  (from the current directory; by the daemon: {images})" in checked


def test_a_directory_of_the_migrations_own_is_shown_once(daemon: dict[Path, Path], tmp_path: Path) -> None:
    file = small_migration(tmp_path)
    file.write_text(f"{file.read_text()}output_dir: {tmp_path}/own\nconversion_dir: {tmp_path}/work\n")
    shown = ctl("plan", file, cwd=tmp_path, mounts=daemon).stdout
    assert f"{tmp_path}/own/data.qcow2" in shown and "by the daemon" not in shown


def test_a_conversion_directory_without_room_is_one_line(tmp_path: Path) -> None:
    file = small_migration(tmp_path)
    with file_system(tmp_path, 32) as place:
        for number in range(100_000):
            try:
                (place / f"{number}").touch()
            except OSError:
                break
        result = ctl("--config", file, "--conversion-dir", place, "--output-dir", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.endswith("[disk-full]")


@pytest.mark.parametrize(
    ("option", "place", "code"),
    [
        ("--conversion-dir", "shut/work", "directory-unusable"),
        ("--conversion-dir", "shut", "directory-unusable"),
        ("--output-dir", "shut/images", "output-unwritable"),
        ("--output-dir", "shut", "output-unwritable"),
    ],
)
def test_a_read_only_directory_is_told_with_its_remedy(
    good: Path, tmp_path: Path, option: str, place: str, code: str
) -> None:
    """As a unit with ProtectSystem= has it: to be made, or there already."""
    shut = tmp_path / "shut"
    shut.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", shut)
    try:
        result = ctl("--config", good, option, tmp_path / place, cwd=tmp_path)
    finally:
        sh("umount", shut)
    assert result.returncode == 1 and f"[{code}]" in result.stderr, result.stderr
    assert "Read-only file system" in result.stderr and f"ReadWritePaths={tmp_path / place}" in result.stderr
