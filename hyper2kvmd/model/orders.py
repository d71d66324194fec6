"""The order for a worker: one job, its bounds and its limits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import NOBODY_AT_ALL
from hyper2kvmd.model.results import Finished


class Limits(Frozen):
    """How much of the host one job may use."""

    threads: int = Field(default=0, ge=0, le=256)
    """Threads of the copy engine; 0: one for each core."""
    bandwidth_limit: int = Field(default=0, ge=0)
    """Bytes a second that the conversion may read; 0: no limit."""
    io_priority: Literal["normal", "idle"] = "normal"


HelperCall: TypeAlias = tuple[str, ...] | Path
"""How the root helper is called: by a command, or through the socket if systemd runs it."""


class FileSystem(Frozen):
    """A file system at one point in time. Sizes are bytes."""

    device: int
    free: int
    size: int
    inodes: int | None = None
    """Files that can still be made; None without a limit."""


class Bounds(Frozen):
    """Limits on what a job may name, in addition to the submitter's own rights.

    The default is for a one-shot run: the kernel checks the rights of its user.
    """

    source_dirs: tuple[Path, ...] = ()
    """Sources are below one of them. Empty: anywhere."""
    output_dirs: tuple[Path, ...] = ()
    """Output directories are one of them or below one. Empty: anywhere."""
    shared_output_dir: Path | None = None
    """The configured output directory, which every submitter's results may use."""
    conversion_dirs: tuple[Path, ...] = ()
    """The conversion directories that a job may name. Empty: any."""
    private_dirs: tuple[Path, ...] = ()
    """The service's own directories: no output directory may be one of them, be in one or contain one."""
    outer_dirs: tuple[Path, ...] = ()
    """Those of them that may contain the configured output directory nevertheless."""
    libvirt_uris: tuple[str, ...] | None = None
    """The URIs that a job may name besides those of this host. None: any, for a job without a submitter."""
    libvirt_pools: tuple[str, ...] | None = None
    """The storage pools that a job may name. None: any, for a job without a submitter."""
    hooks: Mapping[str, Path] = {}
    """The programs that a job may name as its hooks."""


class SpaceNeeded(Frozen):
    """What a job asks for before it writes."""

    conversion_bytes: int
    """That the files of its working folder will occupy in all, with those that are there already."""
    publish_bytes: int = 0
    """At the destination of the results, if that is another file system."""


class Order(Frozen):
    """The complete order for a worker: one job, its directories, and the helper. One JSON object on its stdin."""

    job_id: str
    attempt: int = 1
    migration: Migration
    submitter: str | None = None
    """Name of the user whose rights apply; None: this process's user."""
    submitter_uid: int = NOBODY_AT_ALL
    """The same user's uid, as given by the kernel at submission."""
    conversion_dir: Path
    output_dir: Path
    helper: HelperCall
    virtio_win: Path | None = None
    """The operator's driver source, for a migration that names none."""
    bounds: Bounds = Bounds()
    space_reserve: str = "5%"
    """Kept free on every file system written to: bytes, or a percentage of its size."""
    limits: Limits = Limits()
    finished: Finished = Field(default_factory=Finished)
    notes: tuple[Concern, ...] = ()
    """Keys of the migration YAML that have no effect here."""

    @property
    def working_folder(self) -> Path:
        return self.conversion_dir / f"{self.migration.vm_name}.{self.job_id}"

    @property
    def purpose(self) -> str:
        """A digest of the requested result and submitter. A key that a later version adds does not change it."""
        asked = self.migration.model_dump_json(exclude_defaults=True)
        parts = (asked, self.submitter or "", str(self.submitter_uid), str(self.output_dir))
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
