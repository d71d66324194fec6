"""Finds the machines in the documents of one or more YAML files: one complete mapping for each.

Later files override earlier ones, key by key. A machine in the list `vms` overrides the keys beside that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.spec_translation import VMS, canonical, is_null
from hyper2kvmd.yaml_source import KeyValue, Listing, Mapping, Node, Position, problem

MAX_MACHINES = 100
"""Machines of one file."""
MAX_MERGED_NODES = 20_000
"""Keys and values of all machines of one file, after each got the common ones."""


@dataclass(frozen=True)
class Machines:
    """The mapping of each machine; `listed` if they come from a list or from several documents."""

    roots: tuple[Mapping, ...]
    problems: tuple[Problem, ...]
    listed: bool


def find_machines(files: Sequence[tuple[Mapping, ...]]) -> Machines:
    """The machines in those files, each given as its documents. All keys have their canonical names."""
    problems: list[Problem] = []
    documents: tuple[Mapping, ...] = (Mapping((), files[0][0].place),)
    for roots in files:
        translated = [canonical(root) for root in roots]
        problems += (one for document in translated for one in document.problems)
        if len(documents) > 1 and len(roots) > 1:
            hint = "Use one file with several documents, and merge it with files that have one document each"
            message = "this is the second file with several documents"
            problems.append(problem("yaml-refused", message, hint, place=roots[1].place))
            continue
        documents = tuple(merged(first, then.root) for first in documents for then in translated)
    found: list[Mapping] = []
    listed = len(documents) > 1
    for document in documents:
        common, machines = _without_list(document)
        if machines is None:
            found.append(document)
            continue
        listed = True
        members, errors = _members(common, machines)
        found += members
        problems += errors
    if len(found) > MAX_MACHINES:
        problems.append(_too_many(found[0].place))
        found = found[:1]
    return Machines(tuple(found), tuple(problems), listed)


def merged(first: Mapping, then: Mapping) -> Mapping:
    """The keys of both; `then` overrides."""
    entries = {entry.key: entry for entry in (*first.entries, *then.entries)}
    return replace(then, entries=tuple(entries.values()))


def _without_list(document: Mapping) -> tuple[Mapping, KeyValue | None]:
    machines = next((entry for entry in document.entries if entry.key == VMS and not is_null(entry.value)), None)
    return replace(document, entries=tuple(entry for entry in document.entries if entry.key != VMS)), machines


def _members(common: Mapping, machines: KeyValue) -> tuple[list[Mapping], list[Problem]]:
    """The machines of one list, each merged over the common keys."""
    if machines.value is None:  # its error is on the list already
        return [], []
    hint = "Write one entry for each machine: `vms: [{vmdk: /exports/web01.vmdk}]`"
    if not isinstance(machines.value, Listing) or not machines.value.items:
        return [], [problem("value-invalid", "vms is not a list of machines", hint, place=machines.place, key=VMS)]
    if len(machines.value.items) * _nodes(common) > MAX_MERGED_NODES:
        return [], [_too_many(machines.place)]
    roots: list[Mapping] = []
    problems: list[Problem] = []
    for item in machines.value.items:
        if not isinstance(item, Mapping):
            message = "a machine of vms is not a mapping"
            problems.append(problem("value-invalid", message, hint, place=item.place, key=VMS))
            continue
        translated = canonical(item, may_list_machines=False)
        problems += translated.problems
        roots.append(merged(common, translated.root))
    return roots, problems


def _too_many(place: Position) -> Problem:
    message = f"more than {MAX_MACHINES} machines, or more than {MAX_MERGED_NODES} keys and values of all of them"
    return problem("yaml-refused", message, "Split the file", place=place, key=VMS)


def _nodes(node: Node | None) -> int:
    if isinstance(node, Mapping):
        return 1 + sum(_nodes(entry.value) for entry in node.entries)
    return 1 + sum(map(_nodes, node.items)) if isinstance(node, Listing) else 1
