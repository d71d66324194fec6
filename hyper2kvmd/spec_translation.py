"""Translates the keys of hyper2kvm in one mapping of a migration YAML, as `hyper2kvm_keys` decides.

`canonical` needs names only, so mappings can be merged afterwards. `decide` needs the values that count in the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from hyper2kvmd.hyper2kvm_keys import BY_KEY, FALSE, NO_CHANGE, OTHER_COMMANDS, SOURCE, TRUE, Row
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.yaml_binding import unknown_key
from hyper2kvmd.yaml_source import KeyValue, Mapping, Node, Scalar, duplicate, problem, shown

MANUAL = "hyper2kvm-migration"
"""The manual page with all keys."""
NULL = ("null", "Null", "NULL", "~")
VMS = "vms"
"""The key of a list of machines, which `spec_batch` reads."""


@dataclass(frozen=True)
class Translated:
    """A mapping without keys of hyper2kvm, and what became of these."""

    root: Mapping
    notes: tuple[Concern, ...] = ()
    problems: tuple[Problem, ...] = ()


def row_of(key: str) -> Row | None:
    """The decision about a key of hyper2kvm; None for a key of this program."""
    return None if key in Migration.model_fields else BY_KEY.get(key)


def is_null(value: Node | None) -> bool:
    """Whether the value says that the key is not given."""
    return isinstance(value, Scalar) and not value.quoted and value.text in NULL


def canonical(mapping: Mapping, *, may_list_machines: bool = True) -> Translated:
    """The mapping with one name for each meaning. Unknown keys are problems, and are left out."""
    first: dict[str, KeyValue] = {}
    kept: dict[str, KeyValue] = {}
    problems: list[Problem] = []
    for entry in mapping.entries:
        name = _canonical_name(entry)
        if first.setdefault(entry.key, entry) is not entry:
            problems.append(duplicate(entry, first[entry.key]))
        elif name == VMS and not may_list_machines:
            hint = "Move the machines to the list at the top level"
            message = "vms is given within a machine of the list vms"
            problems.append(problem("value-conflict", message, hint, place=entry.place, key=VMS))
        elif name != VMS and name not in Migration.model_fields and name not in BY_KEY:
            problems.append(unknown_key(entry, Migration.model_fields, MANUAL))
        elif name not in kept or is_null(kept[name].value):
            kept[name] = replace(entry, key=name)
        elif not is_null(entry.value) and not _same(kept[name].value, entry.value):
            problems.append(_two_names(name, kept[name], entry))
    return Translated(replace(mapping, entries=tuple(kept.values())), problems=tuple(problems))


def _canonical_name(entry: KeyValue) -> str:
    row = row_of(entry.key)
    if row is None or not row.same_as or isinstance(entry.value, Mapping):
        return entry.key
    return _source_key(entry.value) if row.same_as == SOURCE else row.same_as


def _source_key(value: Node | None) -> str:
    """The key for that file, by its suffix."""
    suffix = PurePath(value.text).suffix.lower().lstrip(".") if isinstance(value, Scalar) else ""
    return suffix if suffix in SOURCE_KEYS else "vmdk"


def _same(one: Node | None, other: Node | None) -> bool:
    return isinstance(one, Scalar) and isinstance(other, Scalar) and one.text == other.text


def _two_names(name: str, first: KeyValue, second: KeyValue) -> Problem:
    message = f"{shown(first.written)} and {shown(second.written)} are the same key, with different values"
    return problem("value-conflict", message, f"Keep {name}", place=second.place, key=name)


def decide(mapping: Mapping, base: Path | None) -> Translated:
    """The keys of this program only, of a mapping that is canonical and complete."""
    kept = {entry.key: entry for entry in mapping.entries if not is_null(entry.value)}
    foreign = [entry for entry in kept.values() if row_of(entry.key) is not None]
    for entry in foreign:
        del kept[entry.key]
    unused: dict[Row | None, list[str]] = {}
    problems: list[Problem] = []
    for entry in foreign:
        row = BY_KEY[entry.key]
        if error := _error(entry, row) or _nested(entry, row, kept):
            problems.append(error)
        elif switched := _switched(entry, row):
            problems += _set(kept, entry, *switched)
        elif row.stands_in_for and row.stands_in_for not in kept:
            kept[row.stands_in_for] = replace(entry, key=row.stands_in_for)
        else:
            unused.setdefault(row if row.decision != "refused" else None, []).append(entry.written)
    problems += [*_command(kept), *_split_output(kept, base)]
    notes = tuple(_note(row, keys) for row, keys in unused.items())
    return Translated(replace(mapping, entries=tuple(kept.values())), notes, tuple(problems))


def _error(entry: KeyValue, row: Row) -> Problem | None:
    if row.decision == "refused" and _word(entry.value) not in row.harmless:
        message = f"the key {shown(entry.written)} of hyper2kvm is not supported"
        return problem("key-unsupported", message, row.text, place=entry.place, key=entry.key)
    if (row.when_true or row.when_false) and _word(entry.value) not in TRUE + FALSE and entry.value is not None:
        message = f"{shown(entry.written)} is neither true nor false"
        return problem("value-invalid", message, "Write true or false", place=entry.value.place, key=entry.key)
    return None


def _nested(entry: KeyValue, row: Row, kept: dict[str, KeyValue]) -> Problem | None:
    """An error for a mapping where hyper2kvm's key has a single value.

    hyper2kvm also knows a section `output`. It adds nothing to `output_dir` or `to_output`.
    """
    if not row.same_as or (row.same_as == "output_dir" and kept.keys() & {"output_dir", "to_output"}):
        return None
    key = shown(entry.written)
    message, hint = f"{key} takes a single value", f"Write `{key}: value` on one line"
    return problem("value-invalid", message, hint, place=entry.place, key=entry.key)


def _word(value: Node | None) -> str | None:
    """A plain value in lower case."""
    return value.text.lower() if isinstance(value, Scalar) else None


def _switched(entry: KeyValue, row: Row) -> tuple[str, str] | None:
    """The key and the value that a switch stands for; None if it stands for nothing."""
    return row.when_true if _word(entry.value) in TRUE else row.when_false if _word(entry.value) in FALSE else None


def _set(kept: dict[str, KeyValue], entry: KeyValue, key: str, value: str) -> Iterator[Problem]:
    """Set what a switch stands for, unless the mapping has that key."""
    if key not in kept:
        kept[key] = replace(entry, key=key, value=Scalar(value, quoted=False, place=entry.place))
    elif _word(kept[key].value) != value:
        message = f"{shown(entry.written)} asks for {key}: {value}, which is not the value of {key}"
        yield problem("value-conflict", message, f"Keep {key}", place=entry.place, key=key)


def _command(kept: dict[str, KeyValue]) -> Iterator[Problem]:
    """Refuse a command that has a remedy of its own."""
    entry = kept.get("cmd")
    word = _word(entry.value) if entry else None
    if entry and entry.value and word is not None and word in OTHER_COMMANDS:
        del kept["cmd"]
        message = f"the command {word} of hyper2kvm is not supported"
        yield problem("value-invalid", message, OTHER_COMMANDS[word], place=entry.value.place, key="cmd")


def _split_output(kept: dict[str, KeyValue], base: Path | None) -> Iterator[Problem]:
    """Move the directory of `to_output` into `output_dir`, as hyper2kvm reads it: below `output_dir`, unless absolute.

    A path with a directory in it is no file name otherwise.
    """
    entry = kept.get("to_output")
    if entry is None or not isinstance(entry.value, Scalar) or "/" not in entry.value.text:
        return
    directory, name = os.path.split(entry.value.text)
    given = kept.get("output_dir")
    kept["to_output"] = replace(entry, value=replace(entry.value, text=name))
    if given is None:
        kept["output_dir"] = replace(entry, key="output_dir", value=replace(entry.value, text=directory))
    elif not isinstance(given.value, Scalar):
        return
    elif not directory.startswith(("/", "~")):
        below = os.path.normpath(os.path.join(given.value.text, directory))  # noqa: PTH118 - `~` is not expanded yet
        kept["output_dir"] = replace(given, value=replace(given.value, text=below))
    elif _normal(directory, base) != _normal(given.value.text, base):
        message = f"to_output is in {shown(directory)}, and output_dir is {shown(given.value.text)}"
        hint = "Keep one directory: image, report and domain XML are written into it"
        yield problem("value-conflict", message, hint, place=entry.value.place, key="to_output")


def _normal(directory: str, base: Path | None) -> str:
    if base is None or directory.startswith("~"):
        return os.path.normpath(directory)
    return os.path.normpath(base / directory)


def _note(row: Row | None, keys: list[str]) -> Concern:
    """`row` is None for values that ask for no change."""
    names = ", ".join(map(shown, sorted(keys)))
    message = f"{names} {'have' if len(keys) > 1 else 'has'} no effect here: "
    reason = NO_CHANGE if row is None else row.text
    hint = f"Remove {'them' if len(keys) > 1 else 'it'} from the file, unless hyper2kvm reads it as well"
    return Concern(
        code="key-without-effect",
        message=message + reason,
        hint=hint,
        level="information" if row is None else row.level,
    )
