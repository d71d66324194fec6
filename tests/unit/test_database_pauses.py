"""A database that does not respond for a moment: what goes on meanwhile, and what is not ended by it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon import opening
from hyper2kvmd.daemon.batch_report import csv_lines
from hyper2kvmd.daemon.clearing import Clearing
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.pages.server import Web
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.storage import Storage
from hyper2kvmd.errors import BrokenInstallation, TryLater
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job

SILENT = TryLater("database-unavailable", "the job database does not respond", hint="Start its server")


def silent(*_asked: object) -> Sequence[Job]:
    raise SILENT


@pytest.fixture
def config(tmp_path: Path) -> DaemonConfig:
    for name in ("conversions", "images", "state", "spool"):
        (tmp_path / name).mkdir(mode=0o700)
    return DaemonConfig(
        conversion_dir=tmp_path / "conversions",
        output_dir=tmp_path / "images",
        state_dir=tmp_path / "state",
        spool_dir=tmp_path / "spool",
        database_url=f"sqlite:///{tmp_path}/state/jobs.sqlite3",
    )


@pytest.fixture
def store(config: DaemonConfig) -> Iterator[Store]:
    store = Store(config.database_url)
    yield store
    store.close()


def test_a_start_goes_on_without_the_removal_of_leftovers(
    config: DaemonConfig, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "folder_owners", silent)
    asyncio.run(Clearing(config, Ledger(store), Metrics()).at_start(()))
    assert "leftovers of killed jobs may remain: the job database does not respond" in caplog.text


def test_pages_do_not_wait_for_a_report_that_waits_for_the_database(
    config: DaemonConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page() -> str:
        return "a page"

    async def run() -> None:
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def tell(*_asked: object) -> Sequence[Job]:
            loop.call_soon_threadsafe(asked.set)
            raise SILENT

        monkeypatch.setattr(store, "list", tell)
        ledger, metrics = Ledger(store), Metrics()
        web = Web(Scheduler(config, ledger, metrics, (), Storage(config, Locks(config))), ledger, metrics)
        parts = web._report_parts(1, csv_lines)

        async def report() -> str:
            return await anext(parts)

        written = asyncio.create_task(report())
        await asyncio.wait_for(asked.wait(), 60)
        assert await web._pages.get("/", page) == "a page"
        monkeypatch.undo()
        assert await asyncio.wait_for(written, 60) == ""
        ledger.close()

    asyncio.run(run())


def test_a_spool_that_fails_when_a_new_database_asks_for_its_results_is_named(
    config: DaemonConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_config: DaemonConfig) -> int:
        raise OSError(errno.EIO, "Input/output error", f"{config.spool_dir}/done")

    monkeypatch.setattr(opening, "highest_number", fails)
    with pytest.raises(BrokenInstallation, match="spool/done cannot be used: Input/output error") as refusal:
        opening.open_queue(config, Locks(config))
    assert refusal.value.code == "spool-unusable"
