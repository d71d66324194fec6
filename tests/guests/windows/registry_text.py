"""Registry values as text, in the form that regedit and hivexregedit read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Values = Mapping[str, str]
"""Texts of values by name; the name `@` is the default value."""
REG_EXPAND_SZ, REG_BINARY, REG_MULTI_SZ, REG_QWORD = 2, 3, 7, 11


def dword(number: int) -> str:
    return f"dword:{number:08x}"


def text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def expand(value: str) -> str:
    return typed(REG_EXPAND_SZ, f"{value}\0".encode("utf-16-le"))


def texts(*values: str) -> str:
    return typed(REG_MULTI_SZ, "".join(f"{value}\0" for value in (*values, "")).encode("utf-16-le"))


def binary(data: bytes) -> str:
    return typed(REG_BINARY, data)


def qword(number: int) -> str:
    return typed(REG_QWORD, number.to_bytes(8, "little"))


def typed(kind: int, data: bytes) -> str:
    return f"hex({kind:x}):{','.join(f'{byte:02x}' for byte in data)}"


def render(keys: Iterable[tuple[str, Values]]) -> str:
    """The text that adds these keys, their values and the keys above them to a hive."""
    lines, seen = ["Windows Registry Editor Version 5.00", ""], set()
    for key, values in keys:
        for above in _above(key):
            if above not in seen:
                lines += [f"[\\{above}]", ""]
                seen.add(above)
        seen.add(key)
        lines.append(f"[\\{key}]")
        for name, value in values.items():
            lines.append(f"@={value}" if name == "@" else f"{text(name)}={value}")
        lines.append("")
    return "\n".join(lines)


def _above(key: str) -> list[str]:
    parts = key.split("\\")
    return ["\\".join(parts[:count]) for count in range(1, len(parts))]
