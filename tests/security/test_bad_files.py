"""Files that no YAML looks like: each is rejected by name, and the others become jobs."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.daemon.wire import MAX_TEXT
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, State

TEXTS = {
    "surrogate-path": 'vmdk: "/a\\ud800.vmdk"\n',
    "surrogate-name": 'vmdk: /a\nvm_name: "\\udfff"\n',
    "surrogate-key": 'vmdk: /a\n"\\udcff": 1\n',
    "surrogate-network": 'vmdk: /a\nnetwork_map: {"\\udcff": br0}\n',
    "no-character": 'vmdk: "\\U00110000"\n',
    "nul": 'vmdk: "/a\\0b"\n',
    "deep": f"a: {'[' * 20_000}",
    "binary": "\x7fELF\0\0",
    "huge": "#" * (MAX_TEXT + 1),
}


@pytest.fixture
def folder(tmp_path: Path, settles_at_once: None) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield store
    store.close()


def scanned(folder: Path, store: Store) -> list[Job]:
    spool = Spool(folder, store, Metrics())
    for _ in range(3):
        spool.scan()
    return [job for job in store.list() if job.state is State.REJECTED]


def test_bad_files_of_every_kind_stop_no_other(folder: Path, store: Store) -> None:
    incoming = folder / "incoming"
    for name, text in TEXTS.items():
        (incoming / f"{name}.yaml").write_text(text)
    (incoming / "latin.yaml").write_bytes("vmdk: /ü.vmdk".encode("latin-1"))
    os.mkfifo(incoming / "fifo.yaml")
    os.mknod(incoming / "device.yaml", 0o020600, os.makedev(1, 3))
    (incoming / "link.yaml").symlink_to("/etc/shadow")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(incoming / "socket.yaml"))
    Path(os.fsdecode(os.fsencode(incoming) + b"/\xff\n.yaml")).write_text("vmdk: /odd\nvm_name: odd\n")
    (incoming / "good.yaml").write_text("vmdk: /good\n")
    bad = {job.spool_name: job.problems[0].code for job in scanned(folder, store)}
    assert sorted(str(name) for name in bad) == sorted(
        [
            *(f"{name}.yaml" for name in TEXTS),
            *(f"{name}.yaml" for name in ("latin", "fifo", "device", "link", "socket")),
        ]
    )
    assert "spool-unexpected" not in bad.values(), "each has an error of its own"
    assert {job.vm_name for job in store.list() if job.state is State.QUEUED} == {"good", "odd"}
    assert list(incoming.iterdir()) == []
    assert {path.name for path in (folder / "rejected").glob("*.yaml")} == bad.keys()


def test_an_unexpected_error_rejects_one_file(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of the YAML library, which nobody can make fail on purpose."""
    parse = yaml.parse

    def failing(text: str, **options: Any) -> Any:
        if "broken" in text:
            raise RuntimeError("no such \udcff")
        return parse(text, **options)

    monkeypatch.setattr(yaml, "parse", failing)
    for name in ("a", "broken", "c"):
        (folder / "incoming" / f"{name}.yaml").write_text(f"vmdk: /{name}\n")
    (job,) = scanned(folder, store)
    assert (job.spool_name, job.problems[0].code) == ("broken.yaml", "spool-unexpected")
    assert "RuntimeError: no such \\udcff" in job.problems[0].message
    assert {job.vm_name for job in store.list() if job.state is State.QUEUED} == {"a", "c"}


def test_a_renamed_file_is_taken_at_once_if_it_can_be_read(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files without a name in the hint wait, and so do empty ones and what is no plain file."""
    monkeypatch.setattr("hyper2kvmd.daemon.incoming.STABLE_SECONDS", 3600)
    for name in ("a", "b"):
        (folder / "incoming" / f"{name}.yaml").write_text(f"vmdk: /{name}\n")
    (folder / "incoming" / "empty.yaml").touch()
    (folder / "incoming" / ".hidden.yaml").write_text("vmdk: /hidden\n")
    os.mkfifo(folder / "incoming" / "fifo.yaml")
    shutil.copyfile(folder / "incoming" / "a.yaml", folder / "incoming" / "a.yaml~")
    spool = Spool(folder, store, Metrics())
    assert spool.scan(["a.yaml", "empty.yaml", ".hidden.yaml", "a.yaml~", "fifo.yaml", "gone.yaml"]).jobs == 1
    assert [job.vm_name for job in store.list()] == ["a"]
    assert spool.scan().jobs == 0
    assert len(list((folder / "incoming").iterdir())) == 5
