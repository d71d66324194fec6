"""What readers of other authors find in a registry hive: hivex (twice), python-registry and reged."""

from __future__ import annotations

import base64
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from Registry import Registry

from tests.support.disks import sh

REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_MULTI_SZ, REG_QWORD = 1, 2, 3, 4, 7, 11
WITHIN = 0x80000000
"""The length of a value that lies in its own record has this bit."""
Value = tuple[int, bytes]
Hive = dict[str, dict[str, Value]]
"""Values by name, by path of the key; the root is "", and so is the name of a default value."""
LINE = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|(@))=(.*)', re.DOTALL)


def values_of(path: Path) -> Hive:
    """All values, on which all readers agree."""
    found = by_python_registry(path)
    for reader in (by_hivexregedit, by_reged, by_hivexml):
        other = reader(path)
        expected = _as_shown(found) if reader is by_hivexml else found
        assert other == expected, f"{reader.__name__}:\n{differences(expected, other)}"
    return found


def differences(one: Hive, other: Hive) -> str:
    """The values that are not the same in both, a line each."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        if key not in one or key not in other:
            lines.append(f"[{key}] only in the {'first' if key in one else 'second'}")
            continue
        names = one[key].keys() | other[key].keys()
        lines += [
            f"[{key}] {name}: {one[key].get(name)}, {other[key].get(name)}"
            for name in sorted(names)
            if one[key].get(name) != other[key].get(name)
        ]
    return "\n".join(lines)


def reg_diff(one: Hive, other: Hive) -> str:
    """What makes the second of the first, for people to read: as regedit writes it, but all texts as text."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        if key not in other:
            lines += [f"[-{key}]", ""]
            continue
        before, after = one.get(key, {}), other[key]
        changed = {name: value for name, value in sorted(after.items()) if before.get(name) != value}
        gone = sorted(before.keys() - after.keys())
        if key not in one or changed or gone:
            lines.append(f"[{key}]")
            lines += [f"{_named(name)}={_written(*value)}" for name, value in changed.items()]
            lines += [*(f"{_named(name)}=-" for name in gone), ""]
    return "\n".join(lines)


def _named(name: str) -> str:
    return f'"{name}"' if name else "@"


def _written(kind: int, data: bytes) -> str:
    if kind in (REG_SZ, REG_EXPAND_SZ, REG_MULTI_SZ):
        prefix = {REG_SZ: "", REG_EXPAND_SZ: "expand:", REG_MULTI_SZ: "multi:"}[kind]
        return prefix + ",".join(f'"{part}"' for part in data.decode("utf-16-le").rstrip("\0").split("\0"))
    if kind == REG_DWORD:
        return f"dword:{int.from_bytes(data, 'little'):08x}"
    return f"hex({kind:x}):{data.hex(',')}"


def by_python_registry(path: Path) -> Hive:
    found: Hive = {}
    keys = [("", Registry.Registry(str(path)).root())]
    while keys:
        place, key = keys.pop()
        found[place] = {_name(value): (value.value_type(), _raw_data(value)) for value in key.values()}
        keys += [(f"{place}\\{child.name()}".lstrip("\\"), child) for child in key.subkeys()]
    return found


def _name(value: Registry.RegistryValue) -> str:
    return "" if value.name() == "(default)" else str(value.name())


def _raw_data(value: Registry.RegistryValue) -> bytes:
    """python-registry does not know how long texts in the place of an offset are."""
    record = value._vkrecord
    data: bytes = value.raw_data()
    if record.raw_data_length() < WITHIN:
        return data
    start = record.data_offset()
    return bytes(record._buf[start : start + record.data_length()])


def by_hivexregedit(path: Path) -> Hive:
    return parse_reg(sh("hivexregedit", "--export", path, "\\"))


def by_reged(path: Path) -> Hive:
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "all.reg"
        sh("reged", "-x", path, "\\", "\\", text)
        # reged ends no line after a value without data
        return parse_reg(re.sub(r'(=hex\(\d+\):)(?=["@\[])', r"\1\n", text.read_text(encoding="latin-1")))


def by_hivexml(path: Path) -> Hive:
    """As XML shows values: texts without what ends them."""
    found: Hive = {}
    (top,) = ElementTree.fromstring(sh("hivexml", path)).findall("node")
    nodes = [("", top)]
    while nodes:
        place, node = nodes.pop()
        found[place] = {value.get("key", ""): _shown(value) for value in node.findall("value")}
        nodes += [(f"{place}\\{child.get('name')}".lstrip("\\"), child) for child in node.findall("node")]
    return found


# ---------------------------------------------------------------- .reg


def parse_reg(text: str) -> Hive:
    """The text that regedit and its likes write."""
    found: Hive = {}
    values: dict[str, Value] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("["):
            values = found.setdefault(line[1:-1].lstrip("\\"), {})
        elif matched := LINE.fullmatch(line):
            values[_unescaped(matched[1] or "")] = _parsed(matched[3])
    return found


def _parsed(value: str) -> Value:
    if value.startswith('"'):
        return REG_SZ, f"{_unescaped(value[1:-1])}\0".encode("utf-16-le")
    kind, _, content = value.partition(":")
    if kind == "dword":
        return REG_DWORD, int(content, 16).to_bytes(4, "little")
    number = int(kind[4:-1], 16) if kind != "hex" else REG_BINARY
    return number, bytes.fromhex(content.replace(",", ""))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


# ---------------------------------------------------------------- hivexml

KINDS = {"none": 0, "string": REG_SZ, "expand": REG_EXPAND_SZ, "binary": REG_BINARY, "int32": REG_DWORD}
KINDS |= {"string-list": REG_MULTI_SZ, "int64": REG_QWORD}


def _shown(value: ElementTree.Element) -> Value:
    kind = KINDS[value.get("type", "")]
    text = value.get("value", "")
    if kind == REG_MULTI_SZ:
        return kind, "\n".join(child.text or "" for child in value.findall("string")).strip("\n").encode()
    if value.get("encoding") == "base64":
        return kind, base64.b64decode(text)
    if kind in (REG_DWORD, REG_QWORD):
        return kind, (int(text) & (1 << 64) - 1).to_bytes(8, "little")[: 4 if kind == REG_DWORD else 8]
    return kind, text.encode()


def _as_shown(hive: Hive) -> Hive:
    return {key: {name: _text_only(value) for name, value in values.items()} for key, values in hive.items()}


def _text_only(value: Value) -> Value:
    kind, data = value
    if kind not in (REG_SZ, REG_EXPAND_SZ, REG_MULTI_SZ):
        return value
    return kind, data.decode("utf-16-le").rstrip("\0").replace("\0", "\n").encode()
