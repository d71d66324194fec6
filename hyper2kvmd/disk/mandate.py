"""On whose behalf sources are opened, and below which folders.

Judged on what was opened, by the name that the kernel has for it: a name that was looked at before could lead
elsewhere by the time it is opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Unsafe
from hyper2kvmd.model import Order
from hyper2kvmd.person import READ, SEARCH, Person


@dataclass(frozen=True)
class Mandate:
    """`person` is None for whoever runs this program: the kernel judges them. No `folders`: anywhere."""

    person: Person | None = None
    folders: tuple[Path, ...] = ()

    @staticmethod
    def of(order: Order) -> Mandate:
        person = None if order.submitter is None else Person.named(order.submitter)
        return Mandate(person, order.bounds.source_dirs)

    def require(self, handle: int, path: Path) -> None:
        """Raise Unsafe (`path-not-allowed`, `submitter-may-not-read`) unless the open file may be used as `path`."""
        opened = Path(f"/proc/self/fd/{handle}").readlink()
        require_below(path, opened, self.folders, "source")
        if self.person is None:
            return
        if not self.person.may(READ, handle):
            raise _not_theirs(path, path, self.person)
        for folder in opened.parents:
            if not self.person.may(SEARCH, folder):
                raise _not_theirs(path, folder, self.person)


ANYONE = Mandate()


def require_below(path: Path, real: Path, allowed: tuple[Path, ...], what: str) -> None:
    """Raise Unsafe (`path-not-allowed`) when `path`, which is `real` in truth, lies below none of `allowed`."""
    if allowed and not any(real.is_relative_to(os.path.realpath(directory)) for directory in allowed):
        raise Unsafe(
            "path-not-allowed",
            f"the {what} {path} lies outside the directories that this daemon may use",
            hint=f"move it below {', '.join(map(str, allowed))}, or extend allowed_{what}_dirs",
        )


def _not_theirs(path: Path, obstacle: Path, person: Person) -> Unsafe:
    return Unsafe(
        "submitter-may-not-read",
        f"{path} may not be read by {person.name or 'a stranger'}, who wants it migrated: {obstacle} does not let them",
        hint="give them the right to read it (chmod, setfacl), or let somebody submit the job who has it",
    )
