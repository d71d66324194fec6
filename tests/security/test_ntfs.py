"""An NTFS volume took over the process that reads it: that process reaches nothing, and its lies change nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import BrokenInstallation, MigrationFailed
from hyper2kvmd.volumes.ntfs import tool
from hyper2kvmd.volumes.ntfs.volume import NtfsVolume, open_volume
from tests.support.ntfs import IDENTITY, MemoryVolume

SIZE = 1 << 20
ATTACKS = {
    "a file of the host": "open('/etc/passwd')",
    "a file to write": "open('/var/tmp/owned', 'w')",
    "the image": "open({image!r}, 'rb')",
    "a library, once its own is loaded": "(Server().load(), open('/usr/lib/os-release'))",
    "a socket": "__import__('socket').socket()",
    "a pair of sockets": "__import__('socket').socketpair()",
    "another program": "os.execv('/usr/bin/true', ['true'])",
    "more memory": "bytearray(4 << 30)",
}
ATTACKED = """
try:
    {attack}
except (OSError, MemoryError) as refused:
    send({{"unknown": "refused: %r" % refused}}, [])
else:
    send({{"unknown": "it worked"}}, [])
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    return path


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_the_process_reaches_nothing(
    attack: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    source, _, _ = tool.CHILD.read_text().partition('if __name__ == "__main__":')
    line = ATTACKS[attack].format(image=str(image))
    child.write_text(source + ATTACKED.format(attack=line))
    monkeypatch.setattr(tool, "CHILD", child)
    with pytest.raises(BrokenInstallation) as failure:
        tool.check_library()
    assert "refused: " in failure.value.message


def answer(text: object, data: bytes = b"", *, count: int | None = None) -> bytes:
    words = json.dumps(text).encode()
    return struct.pack("<cQI", b"A", len(data) if count is None else count, len(words)) + words + data


def wanted(offset: int, length: int) -> bytes:
    return struct.pack("<cQI", b"R", offset, length)


@contextmanager
def lying(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: bytes) -> Iterator[tuple[NtfsVolume, MemoryVolume]]:
    """A volume whose process says `words` after it has opened it."""
    child = folder / "liar.py"
    said = [answer({}), answer({}), *words]
    child.write_text(f"import os\nfor words in {said!r}:\n    os.write(1, words)\nwhile os.read(0, 65536):\n    pass\n")
    monkeypatch.setattr(tool, "CHILD", child)
    monkeypatch.setattr(tool, "SILENCE_SECONDS", 3.0)
    disk = MemoryVolume(bytearray(SIZE))
    with open_volume(disk, IDENTITY) as volume:
        yield volume, disk
    assert disk.data == bytes(SIZE) and not disk.written


def test_a_library_that_is_unknown_only_after_it_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator would look for a package, and every job on the host would wait."""
    words = answer({"unknown": "not the known one"})
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.names("")
    assert failure.value.code == "ntfs-tool-faulty"


ENTRY = {"folder": False, "size": 1, "attributes": 0, "security": 0, "reparse": None}


@pytest.mark.parametrize(
    "runs",
    [
        [[SIZE, 4096, 0]],
        [[SIZE - 4096, 8192, 0]],
        [[-4096, 4096, 0]],
        [[0, 8192, 0], [4096, 4096, 0]],
        [[0, 4096, -1]],
        [["0", 4096, 0]],
    ],
    ids=["behind it", "across its end", "before it", "twice", "without data", "text"],
)
def test_changes_that_leave_the_volume(runs: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lying(tmp_path, monkeypatch, answer({}), answer({"runs": runs})) as (volume, _):
        volume.write("file", b"data")
        with pytest.raises(MigrationFailed) as failure:
            volume.changed_blocks()
    assert failure.value.code == "ntfs-tool-faulty"


@pytest.mark.parametrize(
    ("offset", "length"),
    [(SIZE, 512), (SIZE - 512, 1024), (1 << 63, 512), (0, SIZE + 1), (0, (1 << 32) - 1)],
)
def test_bytes_that_are_not_the_volumes(
    offset: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lying(tmp_path, monkeypatch, wanted(offset, length)) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.entry("file")
    assert failure.value.code == "ntfs-tool-faulty"


@pytest.mark.parametrize(
    "words",
    [
        answer(ENTRY, count=1 << 40),
        struct.pack("<cQI", b"A", 0, (1 << 32) - 1),
        b"X" + answer(ENTRY)[1:],
        struct.pack("<cQI", b"A", 0, 4) + b"nono",
        struct.pack("<cQI", b"A", 0, 200_000) + b"[" * 200_000,
        answer([]),
        answer({}),
        answer({**ENTRY, "size": -1}),
        answer({**ENTRY, "size": 1 << 80}),
        answer({**ENTRY, "size": "1"}),
        answer({**ENTRY, "reparse": "yes"}),
        answer({"errno": "1"}),
        answer({"errno": 1 << 40, "error": ""}),
    ],
    ids=[
        *("data", "text", "kind", "no JSON", "nested", "list", "empty", "negative", "large", "word", "tag", "error"),
        "unknown error",
    ],
)
def test_an_answer_that_makes_no_sense(words: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.entry("file")
    assert failure.value.code == "ntfs-tool-faulty"


HOSTILE = "\x1b[2J\n\ud800all is well"


def test_its_words_are_one_plain_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = answer({"errno": 5, "error": HOSTILE})
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(OSError, match="all is well") as failure:
        volume.entry("file")
    assert str(failure.value).isprintable()


def test_its_words_about_the_library_are_one_plain_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "liar.py"
    child.write_text(f"import os\nos.write(1, {answer({'unknown': HOSTILE})!r})\n")
    monkeypatch.setattr(tool, "CHILD", child)
    with pytest.raises(BrokenInstallation, match="all is well") as failure, tool.running(None):
        pass
    assert str(failure.value).isprintable()


def test_its_last_words_are_one_plain_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "liar.py"
    child.write_text("import os, sys\nos.write(2, b'\\x1b[2J all is well')\n")
    monkeypatch.setattr(tool, "CHILD", child)
    with pytest.raises(MigrationFailed) as failure, tool.running(None):
        pass
    assert "all is well" in failure.value.message and failure.value.message.isprintable()


@pytest.mark.parametrize("names", [["../../etc"], ["a/b"], [""], ["a\0b"], ["a" * 256], [1], "abc", {"a": 1}])
def test_names_that_are_none(names: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = answer({"names": names})
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.names("")
    assert failure.value.code == "ntfs-tool-faulty"


def test_more_bytes_than_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = answer({}, bytes(1000))
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.read("file", 999)
    assert failure.value.code == "ntfs-tool-faulty"


def test_a_spelling_of_another_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = answer({"path": "../../etc/passwd"})
    with lying(tmp_path, monkeypatch, words) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.spelling("file")
    assert failure.value.code == "ntfs-tool-faulty"


def test_a_process_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lying(tmp_path, monkeypatch) as (volume, _), pytest.raises(MigrationFailed) as failure:
        volume.entry("file")
    assert failure.value.code == "ntfs-tool-died"


def test_a_process_that_reads_nothing_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for bytes without end, and takes none: the pipe is full."""
    monkeypatch.setattr(tool, "SILENCE_SECONDS", 1.0)
    child = tmp_path / "liar.py"
    said = answer({}) + answer({}) + wanted(0, SIZE) * 100
    child.write_text(f"import os, time\nos.write(1, {said!r})\ntime.sleep(600)\n")
    monkeypatch.setattr(tool, "CHILD", child)
    with open_volume(MemoryVolume(bytearray(SIZE)), IDENTITY) as volume, pytest.raises(MigrationFailed) as failure:
        volume.entry("file")
    assert failure.value.code == "ntfs-tool-died"


def test_a_process_that_never_stops_asking_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never silent for long. Here it answers after 4 s, so that the test ends without the guard as well."""
    monkeypatch.setattr(tool, "ANSWER_SECONDS", 2.0)
    child = tmp_path / "liar.py"
    child.write_text(
        f"import os, time\nos.write(1, {answer({}) + answer({})!r})\n"
        f"for _ in range(40):\n    os.write(1, {wanted(0, 512)!r})\n    os.read(0, 512)\n    time.sleep(0.1)\n"
        f"os.write(1, {answer(ENTRY)!r})\nwhile os.read(0, 65536):\n    pass\n"
    )
    monkeypatch.setattr(tool, "CHILD", child)
    with open_volume(MemoryVolume(bytearray(SIZE)), IDENTITY) as volume, pytest.raises(MigrationFailed) as failure:
        volume.entry("file")
    assert failure.value.code == "ntfs-tool-died"
