"""What a worker is told: one job, its bounds and its limits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import NOBODY_AT_ALL
from hyper2kvmd.model.results import Finished


class Limits(Frozen):
    """How much of the host one job may take."""

    threads: int = Field(default=0, ge=0, le=256)
    """Of the copy engine; 0: one for each core."""
    bandwidth_limit: int = Field(default=0, ge=0)
    """Bytes a second that the conversion may read; 0: no limit."""
    io_priority: Literal["normal", "idle"] = "normal"


HelperCall: TypeAlias = tuple[str, ...] | Path
"""How the root helper is called: the command that runs it, or the socket where systemd runs it."""


class FileSystem(Frozen):
    """A file system as it was when somebody looked. Sizes are bytes."""

    device: int
    free: int
    size: int


class Bounds(Frozen):
    """What a submitter's job may name, besides what the submitter's own rights allow.

    The default is for a run without a daemon: the kernel judges whoever runs it.
    """

    source_dirs: tuple[Path, ...] = ()
    """Sources lie below one of them. Empty: anywhere."""
    output_dirs: tuple[Path, ...] = ()
    """Output directories lie in or below one of them. Empty: anywhere."""
    shared_output_dir: Path | None = None
    """The configured output directory, where every submitter's results may go."""
    conversion_dirs: tuple[Path, ...] = ()
    """The conversion directories that a job may name. Empty: any."""
    private_dirs: tuple[Path, ...] = ()
    """The service's own directories: no output directory is one of them, lies in one or contains one."""
    outer_dirs: tuple[Path, ...] = ()
    """Those of them in which the configured output directory may lie nevertheless."""
    libvirt_uris: tuple[str, ...] | None = None
    """The URIs that a job may name besides those of this host. None: any, for a job without a submitter."""


class Order(Frozen):
    """All that a worker is told: one job, where to work, and how to reach the helper. One JSON object on its stdin."""

    job_id: str
    attempt: int = 1
    migration: Migration
    submitter: str | None = None
    """The name of whose rights count; None: those of whoever runs this."""
    submitter_uid: int = NOBODY_AT_ALL
    """The same person, as the kernel knew them when they submitted the job."""
    conversion_dir: Path
    output_dir: Path
    helper: HelperCall
    bounds: Bounds = Bounds()
    space_reserve: str = "5%"
    """Kept free on every file system written to: bytes, or a percentage of its size."""
    limits: Limits = Limits()
    finished: Finished = Finished()

    @property
    def purpose(self) -> str:
        """A digest of what is to be made, and for whom. A key that a later version adds does not change it."""
        asked = self.migration.model_dump_json(exclude_defaults=True)
        parts = (asked, self.submitter or "", str(self.submitter_uid), str(self.output_dir))
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
