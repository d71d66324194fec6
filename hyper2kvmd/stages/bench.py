"""The objects that every stage works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hyper2kvmd.host.destination import real_output_dir, unusable
from hyper2kvmd.host.mandate import ANYONE, Mandate, require_below
from hyper2kvmd.host.workspace import real_conversion_dir
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context

if TYPE_CHECKING:  # each stage imports what it needs of these
    from hyper2kvmd.disk.qemu.overlays import Overlays
    from hyper2kvmd.disk.sources.opened import Sources
    from hyper2kvmd.guest.mounts.rootside import Helper
    from hyper2kvmd.guest.windows.drivers.source import DriverSource
    from hyper2kvmd.targets.target import Target


def with_real_directories(order: Order) -> Order:
    """The order with the real paths of its directories, links followed once; before any directory is made.

    Raises Unsafe (`path-not-allowed`) for a directory that the job may not name, and MigrationFailed
    (`output-unwritable`) for an unusable output directory.
    """
    conversion_dir = real_conversion_dir(order.conversion_dir, order.bounds.conversion_dirs)
    try:
        output_dir = real_output_dir(order)
    except OSError as error:
        raise unusable(order.output_dir, error) from error
    require_below(order.output_dir, output_dir, order.bounds.output_dirs, "output")
    return order.with_changes(conversion_dir=conversion_dir, output_dir=output_dir)


@dataclass(frozen=True)
class Bench:
    """One job's order, its folder, its context and sources, and objects derived from the order."""

    order: Order
    folder: Path
    ctx: Context
    sources: Sources

    @property
    def migration(self) -> Migration:
        return self.order.migration

    @cached_property
    def mandate(self) -> Mandate:
        return Mandate.of(self.order)

    @cached_property
    def helper(self) -> Helper:
        from hyper2kvmd.guest.mounts.rootside import Helper

        return Helper(self.order.helper, self.ctx.helper_answered)

    @cached_property
    def target(self) -> Target:
        """Raises as `target_of` does."""
        from hyper2kvmd.targets.choice import target_of

        return target_of(self.order, self.folder, self.ctx)

    @property
    def driver_place(self) -> tuple[Path | None, Mandate]:
        """Where the drivers for a Windows guest are: by the migration, else by the daemon's configuration.

        The submitter's rights are for the first one, and those of the service for the second one.
        """
        named = self.migration.virtio_win
        return (named, self.mandate) if named is not None else (self.order.virtio_win, ANYONE)

    @contextmanager
    def driver_source(self) -> Iterator[DriverSource | None]:
        """The files at `driver_place`; None if there is none. Raises as `DriverSource.open` does."""
        from hyper2kvmd.guest.windows.drivers.source import DriverSource

        path, mandate = self.driver_place
        if path is None:
            yield None
            return
        with DriverSource.open(path, mandate) as source:
            yield source

    @property
    def changes(self) -> Path:
        """The folder of whatever `repair` makes before it is in the images."""
        return self.folder / "repair"

    def overlays(self, image: Image) -> Overlays:
        """Where the changes to these images are made."""
        from hyper2kvmd.disk.qemu.overlays import Overlays

        return Overlays(self.changes, image)

    def discard_changes(self) -> None:
        """The images are converted anew. Raises OSError."""
        from hyper2kvmd.disk.qemu.overlays import discard

        discard(self.changes)

    def keys(self) -> tuple[bytes, ...]:
        """Possible keys of the guest's LUKS containers; not stored. Raises as `read_keys` does."""
        from hyper2kvmd.disk.key_files import read_keys

        return read_keys(self.migration.luks_keyfile, self.mandate)
