"""Computes the digests of stored files while their disks are copied: each byte is read once more, mostly from memory.

The copy reads a file in the order of the guest's disk and only the parts with data, so it cannot compute the digest
itself.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.location import open_again
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.disks import Checksum, StoredFile

PIECE = 1 << 20
"""Bytes that are read at once."""
WAIT = 0.2
"""Seconds between two reports while nothing else is left to do."""


class Hasher(Protocol):
    """What the digests of `hashlib` and a CRC have in common."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Crc32:
    """The CRC-32 of ZIP archives."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class Abandoned(Exception):
    """The conversion has ended early."""


class DigestCheck:
    """Compares files with their checksums in a thread of its own, from `start` to `finish` or `stop`."""

    def __init__(self, checksums: Sequence[Checksum], mandate: Mandate, bytes_per_second: int | None = None) -> None:
        self._mandate, self._bytes_per_second = mandate, bytes_per_second
        self._by_file: dict[StoredFile, list[Checksum]] = {}
        for one in checksums:
            self._by_file.setdefault(one.of, []).append(one)
        self._thread = threading.Thread(target=self._work)
        self._error: Exception | None = None
        self._stopped = False
        self.done = 0
        """Bytes read so far."""

    def start(self) -> None:
        if self._by_file:
            self._thread.start()

    def stop(self) -> None:
        """End the thread: the conversion has failed."""
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join()

    def require_no_failure(self) -> None:
        """Raise the failure that was found so far: `source-digest-differs`, and as `open_again` does."""
        if self._error is not None:
            raise self._error

    def finish(self, on_progress: Callable[[int], None]) -> None:
        """Wait for the last file; `on_progress` gets the bytes read so far. Raises as `require_no_failure`."""
        while self._thread.ident is not None and self._thread.is_alive():
            self._thread.join(WAIT)
            on_progress(self.done)
        self.require_no_failure()

    def _work(self) -> None:
        try:
            for stored, checksums in self._by_file.items():
                with open_again(stored, self._mandate) as file:
                    found = self._digests(file, {one.algorithm: hasher_for(one) for one in checksums})
                for checksum in checksums:
                    require_digest(checksum, found[checksum.algorithm].hexdigest())
        except Abandoned:
            pass
        except Exception as error:
            self._error = error

    def _digests(self, file: SourceFile, digests: Mapping[str, Hasher]) -> Mapping[str, Hasher]:
        began, first = time.monotonic(), self.done
        for at in range(0, file.size, PIECE):
            data = file.read_whole(at, min(PIECE, file.size - at))
            for one in digests.values():
                one.update(data)
            self.done += len(data)
            self._pace(began, self.done - first)
        return digests

    def _pace(self, began: float, done: int) -> None:
        """Wait as long as the bandwidth limit demands."""
        while not self._stopped:
            due = began + done / self._bytes_per_second if self._bytes_per_second else 0.0
            left = due - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, WAIT))
        raise Abandoned


def hasher_for(checksum: Checksum) -> Hasher:
    """Computes what is compared with the checksum."""
    if checksum.algorithm == "crc32":
        return Crc32()
    return hashlib.new(checksum.algorithm, usedforsecurity=False)


def require_digest(checksum: Checksum, found: str) -> None:
    """Raise MigrationFailed (`source-digest-differs`) unless the digest is that of the checksum."""
    if found != checksum.digest:
        name = checksum.algorithm.upper()
        raise MigrationFailed(
            "source-digest-differs",
            f"{checksum.of} is not the file that was exported: its {name} is {found}, {checksum.manifest} says"
            f" {checksum.digest}",
            hint="Copy or export the machine again",
        )
