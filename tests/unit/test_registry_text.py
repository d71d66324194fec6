"""Edits as the text of a `.reg` file."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest.windows.registry import Editor, Hive, Value, reg_text
from tests.support import hives
from tests.support.hives import dword, sz

ROOT = "HKEY_LOCAL_MACHINE\\SYSTEM"
TREE = {"Services": {"disk": {"Start": dword(3), "Group": sz("SCSI")}, "old": {"x": dword(1), "below": {}}}}

WHOLE = r"""Windows Registry Editor Version 5.00

; before: "Start"=dword:00000003
; before: "Group"="SCSI"
[HKEY_LOCAL_MACHINE\SYSTEM\Services\disk]
"Start"=dword:00000000
"Group"=-

; new key
; text: "ImagePath"="System32\\viostor.sys"
[HKEY_LOCAL_MACHINE\SYSTEM\Services\viostor]
"ImagePath"=hex(2):53,00,79,00,73,00,74,00,65,00,6d,00,33,00,32,00,5c,00,76,00,\
  69,00,6f,00,73,00,74,00,6f,00,72,00,2e,00,73,00,79,00,73,00,00,00
@="default"

; before: "x"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\Services\old]
"x"=-

[-HKEY_LOCAL_MACHINE\SYSTEM\Services\old]

[-HKEY_LOCAL_MACHINE\SYSTEM\Services\old\below]

[HKEY_LOCAL_MACHINE\SYSTEM]
"at the root"=hex:01,02
"""


def test_edits_are_shown_in_their_order() -> None:
    editor = Editor(Hive.parse(hives.hive(TREE)))
    editor.set("Services\\disk", Value.dword("Start", 0))
    editor.delete_value("services\\disk", "group")
    editor.set("Services\\viostor", Value.expand_sz("ImagePath", "System32\\viostor.sys"))
    editor.set("Services\\viostor", Value.sz("", "default"))
    editor.delete_key("Services\\old")
    editor.set("", Value.binary("at the root", b"\1\2"))
    assert reg_text(ROOT, editor.changes) == WHOLE


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Value.sz("x", 'C:\\a "b"'), r'"x"="C:\\a \"b\""'),
        (Value('a"b\\c', 1, b"\0\0"), r'"a\"b\\c"=""'),
        (Value.sz("x", "a\nb"), '"x"=hex(1):61,00,0a,00,62,00,00,00'),
        (Value("x", 1, "ab".encode("utf-16-le")), '"x"=hex(1):61,00,62,00'),
        (Value("x", 4, b"\1\2"), '"x"=hex(4):01,02'),
        (Value("x", 0x1_0012, b"\1"), '"x"=hex(10012):01'),
        (Value.qword("x", 1), '"x"=hex(b):01,00,00,00,00,00,00,00'),
        (Value.multi_sz("x", ["a", "b"]), '"x"=hex(7):61,00,00,00,62,00,00,00,00,00'),
        (Value.binary("x", b""), '"x"=hex:'),
    ],
)
def test_a_value_is_shown_as_regedit_does(value: Value, line: str) -> None:
    editor = Editor(Hive.parse(hives.hive(TREE)))
    editor.set("Services", value)
    assert reg_text(ROOT, editor.changes).splitlines()[-1] == line


def test_nothing_is_shown_for_no_edits() -> None:
    assert reg_text(ROOT, ()) == "Windows Registry Editor Version 5.00\n"


def test_long_data_is_cut_in_comments_only() -> None:
    editor = Editor(Hive.parse(hives.hive({"a": {"long": (3, bytes(1000))}})))
    editor.set("a", Value.binary("long", bytes(2000)))
    _, _, comment, _, *lines = reg_text(ROOT, editor.changes).splitlines()
    assert comment == '; before: "long"=hex:' + "00," * 64 + "... (1000 bytes)"
    assert sum(line.count("00") for line in lines) == 2000
