"""A spool and its database, without a daemon."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.cli import database_repair
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.opening import open_queue
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.jobs.backups import Backups
from hyper2kvmd.jobs.store import Store


class Queue:
    def __init__(self, root: Path) -> None:
        self.spool_dir = root / "spool"
        self.config = DaemonConfig(
            spool_dir=self.spool_dir,
            state_dir=root,
            conversion_dir=root / "c",
            database_url=f"sqlite:///{root}/q.sqlite3",
        )
        self.backups = Backups.of(root / "q.sqlite3", None, 7)
        prepare(self.spool_dir)
        self.open()

    def open(self) -> None:
        self.store = Store(self.config.database_url)
        self.spool = Spool(self.spool_dir, self.store, Metrics())

    def start(self) -> None:
        """Open it as a daemon does when it starts."""
        locks = Locks(self.config)
        try:
            self.store = open_queue(self.config, locks)
        finally:
            locks.close()
        self.spool = Spool(self.spool_dir, self.store, Metrics())

    def drop(self, name: str) -> None:
        (self.spool_dir / "incoming" / name).write_text(f"vmdk: /{name}.vmdk\n")
        self.scan()

    def scan(self) -> None:
        for _ in range(3):
            self.spool.scan()

    def restore(self) -> dict[str, object]:
        self.store.close()
        done = database_repair.restore(self.config, self.backups, None)
        self.open()
        self.scan()
        return done

    def rebuild(self) -> dict[str, object]:
        self.store.close()
        done = database_repair.rebuild(self.config, self.backups)
        self.start()
        self.scan()
        return done

    def files(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.spool_dir / folder).glob("*.yaml"))
