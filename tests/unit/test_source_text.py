"""The text of a source, which a guest or an attacker may have written: what a line means, and that none takes long."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hyper2kvmd.disk
import hyper2kvmd.machines
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.vmdk.descriptor import LONGEST_LINE, Descriptor, parse_descriptor
from hyper2kvmd.disk.sources.vmdk.links import read_descriptor
from hyper2kvmd.errors import MigrationFailed

LONG = 200_000
STARTS = ["", "a", "a=", 'a="', "RW", "RW 1 FLAT", 'RW 1 FLAT "a"', 'RW 1 FLAT "a" 1', "# disk", "version", "encoding"]
ENDS = ["\x01", '"x"y']
REPEATED = [" ", "\t", "a", "0", '"', "=", "-", "_", ".", "#", '"x"', "a=", " =", ". "]


def parsed(line: str) -> Descriptor:
    return parse_descriptor(f'# Disk DescriptorFile\n{line}\ncreateType="vmfs"\n'.encode(), Path("a.vmdk"))


def patterns() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes]]]:
    """The compiled regular expressions of the modules that read sources."""
    for package in (hyper2kvmd.disk, hyper2kvmd.machines):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(found.name)).items():
                for each in value if isinstance(value, tuple) else (value,):
                    each = each[0] if isinstance(each, tuple) and each else each
                    if isinstance(each, re.Pattern):
                        yield f"{found.name}.{name}", each


PATTERNS = list(patterns())


def test_the_patterns_are_found() -> None:
    names = {name.rpartition("sources.")[2] for name, _ in PATTERNS}
    assert {"vmdk.descriptor.EXTENT", "other_files.PATTERNS", "hyper2kvmd.machines.vmx.settings.SETTING"} <= names


@pytest.mark.parametrize("pattern", [pattern for _, pattern in PATTERNS], ids=[name for name, _ in PATTERNS])
def test_no_line_makes_a_pattern_slow(pattern: re.Pattern[str] | re.Pattern[bytes]) -> None:
    """It would take minutes."""
    for start, text, end in itertools.product(STARTS, REPEATED, ENDS):
        line = f"{start}{text * (LONG // len(text))}{end}"
        given = line if isinstance(pattern.pattern, str) else line.encode()
        assert pattern.fullmatch(given) is None or pattern.match(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", [f'a={" " * LONG}"x"y', f'parentCID{" " * LONG}="x"y', f'CID={" " * LONG}x"y"z'])
def test_no_line_makes_a_descriptor_slow(line: str) -> None:
    """It would take hours."""
    assert parsed(line).parent_hint is None


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('parentFileNameHint="a.vmdk"', "a.vmdk"),
        ("  PARENTFILENAMEHINT\t = a.vmdk  ", "a.vmdk"),
        ('parentFileNameHint=" a=b.vmdk "', "a=b.vmdk"),
        ('parentFileNameHint="a.vmdk', "a.vmdk"),
        ('parentFileNameHint="a"b.vmdk"', None),
        ('parentFileNameHint=""', None),
        ("parentFileNameHint", None),
        ('# parentFileNameHint="a.vmdk"', None),
    ],
)
def test_assignments(line: str, hint: str | None) -> None:
    assert parsed(line).parent_hint == hint


@pytest.mark.parametrize("line", ['parentFileNameHint="{}"', 'RW 1 FLAT "{}"'])
def test_a_line_that_is_too_long_is_refused(line: str) -> None:
    parsed(line.format("a" * (LONGEST_LINE // 2)))
    with pytest.raises(MigrationFailed) as caught:
        parsed(line.format("a" * LONGEST_LINE))
    assert caught.value.code == "source-not-vmdk"
    parsed("b" + line.format("a" * LONGEST_LINE))  # nobody reads it


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_limit_of_bytes_leaves_whole_lines(end: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    text = end.join(["# Disk DescriptorFile", "version=1", 'createType="vmfs"', *['RW 1 VMFS "a"'] * 100, ""])
    path.write_bytes(text.encode())
    file = open_file(path)
    for limit in range(60, 200):
        described = read_descriptor(file, limit)
        assert described is not None and len(described.extents) < 12
    whole = read_descriptor(file)
    assert whole is not None and len(whole.extents) == 100
