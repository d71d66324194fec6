"""The options before the command, and the types of options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True)
class Given:
    """The options of a one-shot run, with or without the word `local`."""

    files: tuple[Path, ...]
    """Later ones override keys of earlier ones."""
    conversion_dir: Path | None
    output_dir: Path | None
    threads: int | None
    dry_run: bool
    debug: bool

    @property
    def anything(self) -> bool:
        return any((self.files, self.conversion_dir, self.output_dir, self.threads, self.dry_run, self.debug))
