"""Damages migration YAMLs: each must become a migration or a list of plain problems, soon and in little memory.

Of what is accepted PyYAML is asked as well: it must read the same words. `python -m tests.fuzz.texts --count 50000`;
what it finds it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import yaml

from hyper2kvmd import spec
from hyper2kvmd.hyper2kvm_keys import BY_KEY, SOURCE
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration
from hyper2kvmd.spec_translation import NULL
from tests.fuzz import harness
from tests.support.hostile_yaml import HOSTILE

EXAMPLES = Path(__file__).parents[2] / "examples"
FOREIGN = Path(__file__).parents[1] / "hyper2kvm"
BASE, HOME = Path("/base"), Path("/home/me")
SOURCES = [key for key, row in BY_KEY.items() if row.same_as in (SOURCE, *SOURCE_KEYS)]
WORDS = (
    "vms:\n- ", "vmdk: /srv/b.vmdk\n", "ova: ~/b.ova\n", "raw: ", "workdir: ~", "libvirt_test: true\n",
    "luks_passphrase: x\n",
    "memory: ", "vm_name: ", "libvirt_uri: ", ": ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a",
    "<<: ", "!!str ", "!<x> ", "|\n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "#", "'", '"', "\\", "?", "~", "no",
    "1:30", "0x10", "1e9", ".inf", "-1", "999999999999999999999", "/../", "\t", "\r", "\n", "\0", "\x1b", "\x85",
    "\u2028", "\u202e", "\ufeff", "\ud800",
)  # fmt: skip


def samples() -> tuple[str, ...]:
    """Every example that we ship, every file in the form of hyper2kvm, and every small text that the attacks have."""
    attacks = [text for text, _ in HOSTILE.values() if isinstance(text, str) and len(text) < 4096]
    return (*(path.read_text() for path in sorted([*EXAMPLES.rglob("*.yaml"), *FOREIGN.iterdir()])), *attacks)


def damage(text: str, corpus: tuple[str, ...], pick: random.Random) -> str:
    for _ in range(pick.choice((1, 1, 2, 4, 8))):
        at = pick.randrange(len(text) + 1)
        match pick.randrange(6):
            case 0 | 1:
                text = text[:at] + pick.choice(WORDS) + text[at:]
            case 2:
                text = text[:at] + text[at + pick.choice((1, 2, 8)) :]
            case 3:
                text = text[:at] + chr(pick.choice((pick.randrange(128), pick.randrange(0x11_0000)))) + text[at + 1 :]
            case 4:
                other = pick.choice(corpus)
                text = text[:at] + other[pick.randrange(len(other)) :]
            case 5:
                stop = at + pick.choice((1, 8, 64))
                text = text[:at] + text[at:stop] * pick.choice((2, 3, 200)) + text[stop:]
    return text


def attempt(seed: int, corpus: tuple[str, ...]) -> str:
    pick = random.Random(seed)  # noqa: S311
    text = damage(pick.choice(corpus), corpus, pick)
    try:
        machines = spec.parse(text, base=BASE, home=HOME, default_name="web01")
    except spec.Rejected as refusal:
        for problem in refusal.problems:
            if not (problem.message.isprintable() and problem.hint.isprintable() and len(problem.message) < 1000):
                raise ValueError(f"not one plain line: {problem!r}") from refusal
        return refusal.problems[0].code
    read = described(text)
    assert len(machines) == len(read)
    assert len({machine.migration.vm_name for machine in machines}) == len(machines)
    for machine, keys in zip(machines, read, strict=True):
        same(machine, keys)
    return "accepted" if len(machines) == 1 else "batch"


def described(text: str) -> list[dict[str, Any]]:
    """The keys of each machine as PyYAML reads them, which here gives no word a type."""
    machines: list[dict[str, Any]] = []
    for document in yaml.load_all(text, Loader=yaml.BaseLoader):
        common = {key.replace("-", "_"): value for key, value in (document or {}).items()}
        listed = common.pop("vms", "null")
        if isinstance(listed, list):
            machines += ({**common, **{key.replace("-", "_"): one[key] for key in one}} for one in listed)
        elif common:
            machines.append(common)
    return machines


def same(machine: spec.Parsed, read: dict[str, Any]) -> None:
    """Raise AssertionError unless the machine has the disks and the name that its keys give it."""
    migration = machine.migration
    assert set(read) <= {*Migration.model_fields, *BY_KEY}
    assert all(path.is_absolute() for path in migration.sources)
    assert all(note.message.isprintable() and len(note.message) < 2000 for note in machine.notes)
    named = [read[key] for key in (*SOURCES, *SOURCE_KEYS) if key in read and read[key] not in NULL]
    disks = named[0] if isinstance(named[0], list) else [named[0]]
    assert [located(one) for one in disks] == list(migration.sources)
    if read.get("vm_name", "null") not in NULL:
        assert migration.vm_name == read["vm_name"]


def located(path: str) -> Path:
    return HOME / path[1:].lstrip("/") if path.startswith("~") else BASE / path


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, _: attempt(number, corpus), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=50_000))
