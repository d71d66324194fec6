"""`h2kvmctl check --spool`: the same verdict as the spool's, before a file is dropped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.host import acl
from hyper2kvmd.host.person import SEARCH, WRITE
from hyper2kvmd.model.jobs import State
from tests.support.ctl import ctl
from tests.support.house import House

NOBODY = 65534


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A daemon's folders in which nobody may drop files; the daemon itself is not started."""
    folder = Path(f"/var/tmp/h2k-check-{os.getpid()}")
    folder.mkdir(mode=0o755)
    house = House(folder)
    house.configure()
    house.start()
    handle = os.open(house.spool / "incoming", os.O_RDONLY)
    acl.grant(handle, acl.AclEntry(acl.USER, WRITE | SEARCH, NOBODY))
    os.close(handle)
    yield house
    house.close()
    shutil.rmtree(folder)


def check(house: House, *files: Path) -> tuple[int, list[dict[str, Any]]]:
    done = ctl("check", "--spool", "--config", house.root / "hyper2kvmd.yaml", "--json", *files, cwd=house.root)
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, json.loads(done.stdout)


def codes(house: House, *files: Path) -> list[list[str]]:
    status, results = check(house, *files)
    found = [[problem["code"] for problem in result["problems"]] for result in results]
    assert bool(status) == any(found)
    return found


def written(house: House, name: str, text: str, owner: int = NOBODY, mode: int = 0o644) -> Path:
    path = house.root / name
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, owner, NOBODY)
    return path


def readable(house: House, name: str = "web01") -> str:
    """A migration whose source its owner can read."""
    text = house.migration(name, "plan")
    os.chown(house.root / f"{name}.vmdk", NOBODY, NOBODY)
    return text


def hard_linked(path: Path) -> None:
    path.with_name("link").hardlink_to(path)


def test_a_good_file_is_accepted_by_both(house: House) -> None:
    file = written(house, "web01.yaml", readable(house))
    assert codes(house, file) == [[]]
    file.rename(house.spool / "incoming" / file.name)
    house.reaches(1, State.SUCCEEDED)


BAD = {
    "spool-ignored": ("web01.txt", None, 0o644),
    "spool-shared": ("web01.yaml", None, 0o666),
    "key-unknown": ("web01.yaml", "vmdk: /a.vmdk\nbanana: 1\n", 0o644),
    "value-invalid": ("web01.yaml", "vmdk: a.vmdk\n", 0o644),
    "spool-too-large": ("web01.yaml", "#" * 70_000, 0o644),
    "source-missing": ("web01.yaml", "vmdk: /nowhere/a.vmdk\n", 0o644),
    "submitter-may-not-read": ("web01.yaml", "vmdk: /etc/shadow\n", 0o644),
    "submitter-may-not-write": ("web01.yaml", "vmdk: {source}\noutput_dir: /etc\n", 0o644),
}


@pytest.mark.parametrize("code", BAD)
def test_what_the_daemon_would_refuse(house: House, code: str) -> None:
    name, text, mode = BAD[code]
    good = readable(house)
    file = written(house, name, (text or good).replace("{source}", str(house.root / "web01.vmdk")), mode=mode)
    (found,) = codes(house, file)
    assert code in found


def test_the_private_directories_are_those_of_the_service_and_not_of_the_caller(house: House) -> None:
    """HOME of the caller is the directory above `teams`."""
    teams = house.root / "teams"
    teams.mkdir()
    os.chown(teams, NOBODY, NOBODY)
    text = json.dumps(json.loads(readable(house)) | {"output_dir": str(teams)})
    assert codes(house, written(house, "web01.yaml", text)) == [[]]


def test_what_is_wrong_with_the_file_itself(house: House) -> None:
    file = written(house, "web01.yaml", readable(house))
    hard_linked(file)
    assert codes(house, file) == [["spool-hard-linked"]]
    latin = written(house, "latin.yaml", "")
    latin.write_bytes(b"vmdk: /\xe9.vmdk\n")
    assert codes(house, latin) == [["spool-not-utf8"]]
    stranger = written(house, "stranger.yaml", readable(house), owner=5)
    assert codes(house, stranger) == [["spool-not-theirs"]]
    assert codes(house, house.root / "missing.yaml") == [["file-unreadable"]]


def test_duplicates_are_found_among_files_and_among_jobs(house: House) -> None:
    text = readable(house)
    first, second = written(house, "one.yaml", text), written(house, "two.yaml", text)
    assert codes(house, first, second) == [[], ["duplicate"]]
    house.ask("POST", "/v1/queue/pause")
    shutil.copy(first, house.spool / "incoming" / "one.yaml")
    os.chown(house.spool / "incoming" / "one.yaml", NOBODY, NOBODY)
    house.reaches(1, State.QUEUED)
    assert codes(house, second) == [["duplicate"]]


def test_names_in_after_are_looked_up(house: House) -> None:
    def waiting(name: str, after: str) -> Path:
        text = json.dumps(json.loads(readable(house, name)) | {"after": after})
        return written(house, f"{name}.yaml", text)

    unknown, known = waiting("web01", "db01"), waiting("web02", "wave 1")
    assert codes(house, unknown, known) == [["after-unknown"], ["after-unknown"]]
    house.ask("POST", "/v1/queue/pause")
    for name, keys in (("db01", {}), ("app01", {"batch": "wave 1"})):
        house.drop(f"{name}-of-root.yaml", house.migration(name, "plan", **keys))
        house.reaches(len(house.jobs()) + 1, State.QUEUED)
    assert codes(house, unknown, known) == [["after-unknown"], ["after-unknown"]]
    for name, keys in (("db01", {}), ("app01", {"batch": "wave 1"})):
        file = written(house, f"{name}.yaml", json.dumps(json.loads(readable(house, name)) | keys))
        file.rename(house.spool / "incoming" / file.name)
    house.reaches(4, State.QUEUED)
    assert codes(house, unknown, known) == [[], []]


def test_what_cannot_be_told_is_said(house: House) -> None:
    file = written(house, "web01.yaml", readable(house))
    house.stop()
    status, (result,) = check(house, file)
    assert status == 0
    assert [line.split(":")[0] for line in result["unknown"]] == ["whether the same content is active already"]
