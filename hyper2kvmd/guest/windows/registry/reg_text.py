"""Edits of hives as the text of a `.reg` file, for reports. What a value was before is a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from hyper2kvmd.guest.windows.registry.changes import EditKind, RegistryEdit
from hyper2kvmd.guest.windows.registry.value import REG_BINARY, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, Value

HEADER = "Windows Registry Editor Version 5.00"
WIDTH = 80
COMMENT_LIMIT = 3 * 64
"""Characters of bytes that a comment shows of what a value was before."""


def reg_text(root: str, edits: Iterable[RegistryEdit]) -> str:
    r"""The edits in their order; `root` is where Windows has the hive, such as `HKEY_LOCAL_MACHINE\SYSTEM`."""
    lines = [HEADER]
    for (path, deleted), group in groupby(edits, lambda edit: (edit.path, edit.kind == EditKind.KEY_DELETED)):
        same = list(group)
        place = plain(rf"{root}\{path}" if path else root)
        lines += ["", *_comments(same), f"[-{place}]" if deleted else f"[{place}]"]
        lines += [line for edit in same if edit.kind == EditKind.VALUE for line in _after(edit)]
    return "\n".join(lines) + "\n"


def _comments(edits: Iterable[RegistryEdit]) -> Iterator[str]:
    """Above the key, since programs other than regedit accept them only there."""
    for edit in edits:
        if edit.after is not None and edit.after.type in (REG_EXPAND_SZ, REG_MULTI_SZ):
            text = ", ".join(map(_quoted, edit.after.texts()))
            yield f"; text: {_name(edit.name)}={text[:COMMENT_LIMIT]}{'...' if len(text) > COMMENT_LIMIT else ''}"
        if edit.kind == EditKind.KEY_CREATED:
            yield "; new key"
        elif edit.before is not None:
            start, data = _assignment(edit.before)
            more = f"... ({len(edit.before.data)} bytes)" if len(data) > COMMENT_LIMIT else ""
            yield f"; before: {start}{data[:COMMENT_LIMIT]}{more}"


def _after(edit: RegistryEdit) -> Iterator[str]:
    if edit.after is None:
        yield f"{_name(edit.name)}=-"
    else:
        yield from _wrapped(*_assignment(edit.after))


def _assignment(value: Value) -> tuple[str, str]:
    """Its text, and bytes that follow it."""
    start = f"{_name(value.name)}="
    if value.type == REG_SZ and value == Value.sz(value.name, value.text()) and value.text().isprintable():
        return start + _quoted(value.text()), ""
    if value.type == REG_DWORD and len(value.data) == 4:
        return f"{start}dword:{value.number():08x}", ""
    kind = "hex:" if value.type == REG_BINARY else f"hex({value.type:x}):"
    return start + kind, value.data.hex(",")


def _wrapped(start: str, data: str) -> Iterator[str]:
    r"""As regedit does it: a line that is continued ends with `,\`, and the next one begins indented."""
    line, at = start, 0
    while len(line) + len(data) - at > WIDTH:
        room = max(0, WIDTH - 1 - len(line)) // 3 * 3
        yield line + data[at : at + room] + "\\"
        line, at = "  ", at + room
    yield line + data[at:]


def _name(name: str) -> str:
    return _quoted(name) if name else "@"


def _quoted(text: str) -> str:
    return '"' + plain(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def plain(text: str) -> str:
    r"""Without characters that cannot be shown: `\u000a` in place of a line break."""
    return re.sub(r"[^ ]", lambda one: one[0] if one[0].isprintable() else f"\\u{ord(one[0]):04x}", text)
