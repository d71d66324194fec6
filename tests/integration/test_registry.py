"""Hives as the programs of other authors write and read them: hivexregedit, hivexml and reged."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.guest.windows.registry import Editor, Hive, Key, Value, reg_text
from tests.support import hives
from tests.support.disks import sh
from tests.support.hives import dword, sz

Content = dict[str, dict[str, tuple[int, bytes]]]
"""Keys by their paths, with their values."""
ROOT = "HKEY_LOCAL_MACHINE\\SYSTEM"
TREE = {
    "Select": {"Current": dword(1)},
    "ControlSet001": {
        "Services": {f"service{number:03}": {"Start": dword(number % 5), "": sz("x")} for number in range(600)}
    },
}
REG = r"""Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\Setup]

[HKEY_LOCAL_MACHINE\SYSTEM\Setup\{4D36E97B-E325-11CE-BFC1-08002BE10318}]
"Text"="C:\\Windows"
"Number"=dword:0000abcd
"Bytes"=hex:00,01,02,03,04,05
"List"=hex(7):61,00,00,00,62,00,00,00,00,00
@="default"

[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\service001]
"Start"=-
"ImagePath"=hex(2):61,00,00,00

[-HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\service002]
"""


def content(key: Key) -> Content:
    found = {key.path.upper(): {each.name: (each.type, each.data) for each in key.values()}}
    for below in key.subkeys():
        found |= content(below)
    return found


def exported(hive: Path) -> Content:
    """As hivexregedit shows it."""
    text = subprocess.run(["hivexregedit", "--export", hive, "\\"], capture_output=True, check=True).stdout.decode(
        "latin-1"
    )
    found: Content = {}
    for block in text.split("\n\n"):
        lines = block.strip().split("\n")
        if match := re.fullmatch(r"\[\\(.*)\]", lines[0], re.DOTALL):
            found[match[1].upper()] = dict(map(assignment, lines[1:]))
    return found


def assignment(line: str) -> tuple[str, tuple[int, bytes]]:
    match = re.fullmatch(r'(@|"(?:[^"\\]|\\.)*")=(?:dword:(\w+)|hex\((\w+)\):([\w,]*))', line)
    assert match, line
    name = "" if match[1] == "@" else re.sub(r"\\(.)", r"\1", match[1][1:-1])
    if match[2]:
        return name, (4, struct.pack("<I", int(match[2], 16)))
    return name, (int(match[3], 16), bytes.fromhex(match[4].replace(",", "")))


def in_xml(hive: Path) -> dict[str, int]:
    """Keys by their paths, with the number of their values, as hivexml shows them."""

    def read(node: ET.Element, above: str) -> Iterator[tuple[str, int]]:
        yield above.upper(), len(node.findall("value"))
        for below in node.findall("node"):
            yield from read(below, f"{above}\\{below.get('name')}".lstrip("\\"))

    text = subprocess.run(["hivexml", hive], capture_output=True, check=True).stdout
    (root,) = ET.fromstring(text).findall("node")
    return dict(read(root, ""))


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    path = tmp_path / "SYSTEM"
    path.write_bytes(hives.hive(TREE))
    return path


def test_a_hive_that_hivexregedit_wrote_is_read(hive: Path, tmp_path: Path) -> None:
    (tmp_path / "edits.reg").write_text(REG)
    sh("hivexregedit", "--merge", "--prefix", ROOT, hive, tmp_path / "edits.reg")
    read = content(Hive.parse(hive.read_bytes()).root)
    assert read == exported(hive)
    assert read["SETUP\\{4D36E97B-E325-11CE-BFC1-08002BE10318}"]["Text"] == sz("C:\\Windows")
    assert "CONTROLSET001\\SERVICES\\SERVICE002" not in read


@pytest.mark.parametrize("seed", range(8))
def test_other_programs_read_what_we_wrote(hive: Path, seed: int) -> None:
    pick = random.Random(seed)  # noqa: S311
    editor = Editor(Hive.parse(hive.read_bytes()))
    for number in range(60):
        path = rf"ControlSet001\Services\{pick.choice(('service', 'virtio', 'größe '))}{number * 10 % 700:03}"
        match pick.randrange(5):
            case 0:
                editor.delete_key(path)
            case 1:
                editor.delete_value(path, "Start")
            case _:
                data = pick.randbytes(pick.choice((0, 3, 4, 5, 300, 5000, 16344, 40000)))
                editor.set(path + pick.choice(("", "\\Parameters\\Wdf")), Value(f"value {number}", 3, data))
    hive.write_bytes(editor.bytes())
    ours = content(editor.hive.root)
    assert exported(hive) == ours
    assert in_xml(hive) == {path: len(values) for path, values in ours.items()}


def test_hivexregedit_edits_what_we_wrote(hive: Path, tmp_path: Path) -> None:
    editor = Editor(Hive.parse(hive.read_bytes()))
    editor.set("Setup\\new", Value.sz("name", "text"))
    hive.write_bytes(editor.bytes())
    (tmp_path / "edits.reg").write_text(REG)
    sh("hivexregedit", "--merge", "--prefix", ROOT, hive, tmp_path / "edits.reg")
    assert content(Hive.parse(hive.read_bytes()).root) == exported(hive)


def test_our_text_is_a_reg_file(hive: Path, tmp_path: Path) -> None:
    """hivexregedit makes the same edits of the same hive from it."""
    before = hive.read_bytes()
    editor = Editor(Hive.parse(before))
    editor.set("Setup\\{new} key", Value.sz("name", "C:\\text"))
    editor.set("Setup\\{new} key", Value.binary("", bytes(range(200))))
    editor.set("Setup\\{new} key", Value.multi_sz("list", ["one", "two"]))
    editor.set(r"ControlSet001\Services\service005", Value.dword("Start", 4))
    editor.delete_value(r"ControlSet001\Services\service006", "")
    editor.delete_key(r"ControlSet001\Services\service007")
    (tmp_path / "ours.reg").write_text(reg_text(ROOT, editor.changes))
    sh("hivexregedit", "--merge", "--prefix", ROOT, hive, tmp_path / "ours.reg")
    assert exported(hive) == content(editor.hive.root)


def test_reged_reads_what_we_wrote(hive: Path, tmp_path: Path) -> None:
    editor = Editor(Hive.parse(hive.read_bytes()))
    path = r"ControlSet001\Services\viostor"
    editor.set(path, Value.dword("Start", 0))
    editor.set(path, Value.sz("Group", "SCSI miniport"))
    editor.delete_key(r"ControlSet001\Services\service007")
    hive.write_bytes(editor.bytes())
    argv = ["reged", "-x", str(hive), ROOT, r"\ControlSet001", str(tmp_path / "out.reg")]
    subprocess.run(argv, capture_output=True, check=False)  # its exit status is 2 for a hive that it has only read
    text = (tmp_path / "out.reg").read_text().replace("\r", "")
    assert f'[{ROOT}\\{path}]\n"Start"=dword:00000000\n"Group"="SCSI miniport"\n' in text
    assert text.count(f"[{ROOT}\\ControlSet001\\Services\\") == 600
    assert "service007" not in text
