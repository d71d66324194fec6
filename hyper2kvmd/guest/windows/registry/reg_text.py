"""Edits of hives as the text of a `.reg` file, for reports. What a value was before is a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hyper2kvmd.guest.windows.registry.changes import EditKind, RegistryEdit
from hyper2kvmd.guest.windows.registry.value import REG_BINARY, REG_DWORD, REG_SZ, Value

HEADER = "Windows Registry Editor Version 5.00"
WIDTH = 80


def reg_text(root: str, edits: Iterable[RegistryEdit]) -> str:
    r"""The edits in their order; `root` is where Windows has the hive, such as `HKEY_LOCAL_MACHINE\SYSTEM`."""
    lines, place = [HEADER], ""
    for edit in edits:
        path = rf"{root}\{edit.path}" if edit.path else root
        here = f"[-{path}]" if edit.kind == EditKind.KEY_DELETED else f"[{path}]"
        if here != place:
            lines += ["", plain(here)]
            place = here
        if edit.kind == EditKind.KEY_CREATED:
            lines.append("; new key")
        if edit.kind == EditKind.VALUE:
            lines.extend(_value_lines(edit))
    return "\n".join(lines) + "\n"


def _value_lines(edit: RegistryEdit) -> Iterator[str]:
    if edit.before is not None:
        yield from (f"; before: {line}" for line in _assignment(edit.before))
    if edit.after is not None:
        yield from _assignment(edit.after)
    else:
        yield f"{_name(edit.name)}=-"


def _assignment(value: Value) -> Iterator[str]:
    start = f"{_name(value.name)}="
    if value.type == REG_SZ and value == Value.sz(value.name, value.text()) and value.text().isprintable():
        yield start + _quoted(value.text())
    elif value.type == REG_DWORD and len(value.data) == 4:
        yield f"{start}dword:{value.number():08x}"
    else:
        kind = "hex:" if value.type == REG_BINARY else f"hex({value.type:x}):"
        yield from _hex_lines(start + kind, value.data)


def _hex_lines(start: str, data: bytes) -> Iterator[str]:
    r"""As regedit wraps them: a line that is continued ends with a comma and `\`, the next one begins indented."""
    line = start
    for index, byte in enumerate(data):
        last = index == len(data) - 1
        piece = f"{byte:02x}" + ("" if last else ",")
        if len(line) + len(piece) > WIDTH - 1:
            yield line + "\\"
            line = "  "
        line += piece
    yield line


def _name(name: str) -> str:
    return _quoted(name) if name else "@"


def _quoted(text: str) -> str:
    return '"' + plain(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def plain(text: str) -> str:
    r"""Without characters that cannot be shown: `\u000a` in place of a line break."""
    return re.sub(r"[^ ]", lambda one: one[0] if one[0].isprintable() else f"\\u{ord(one[0]):04x}", text)
