"""The results of the finished stages in a working folder, durable before anybody is told of them.

So they survive a daemon that died before it had them on record. Removed with the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from hyper2kvmd.host.files import write_durably
from hyper2kvmd.host.workspace import RECORD
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.results import FIELDS, Finished, Product, recorded


class Recorded(Frozen):
    """What the attempts of one job have finished in this folder, and how long each stage took."""

    finished: Finished = Field(default_factory=Finished)
    seconds: Mapping[Stage, float] = {}


@dataclass(frozen=True)
class StageRecord:
    folder: Path

    def read(self) -> Recorded:
        """Nothing if the file is missing, or from another version."""
        try:
            return Recorded.read_back(self._path.read_bytes()) or Recorded()
        except FileNotFoundError:
            return Recorded()

    def start(self, finished: Finished, seconds: Mapping[Stage, float]) -> None:
        """The attempt continues from these results. Raises OSError."""
        write_durably(self._path, recorded(Recorded(finished=finished, seconds=seconds)))

    def add(self, stage: Stage, product: Product, seconds: float) -> None:
        """Raises OSError."""
        known = self.read()
        finished = known.finished.with_changes(**{FIELDS[type(product)]: product})
        self.start(finished, {**known.seconds, stage: seconds})

    def drop(self) -> None:
        """The next attempt starts over, whatever it is told. Raises OSError."""
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.folder / RECORD
