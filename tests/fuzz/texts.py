"""Damages migration YAMLs: each must become a migration or a list of plain problems, soon and in little memory.

Of what is accepted PyYAML is asked as well: it must read the same words. `python -m tests.fuzz.texts --count 50000`;
what it finds it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import yaml

from hyper2kvmd import spec
from hyper2kvmd.model.asked import Migration
from tests.fuzz import harness
from tests.support.hostile_yaml import HOSTILE

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = (
    "vmdk: /srv/b.vmdk\n", "memory: ", "vm_name: ", "libvirt_uri: ", ": ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a",
    "<<: ", "!!str ", "!<x> ", "|\n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "#", "'", '"', "\\", "?", "~", "no",
    "1:30", "0x10", "1e9", ".inf", "-1", "999999999999999999999", "/../", "\t", "\r", "\n", "\0", "\x1b", "\x85",
    "\u2028", "\u202e", "\ufeff", "\ud800",
)  # fmt: skip


def samples() -> tuple[str, ...]:
    """Every example that we ship, and every small text that the attacks have."""
    attacks = [text for text, _ in HOSTILE.values() if isinstance(text, str) and len(text) < 4096]
    return (*(path.read_text() for path in sorted(EXAMPLES.rglob("*.yaml"))), *attacks)


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
        migration = spec.parse(text, base=None, default_name="web01")
    except spec.Rejected as refusal:
        for problem in refusal.problems:
            if not (problem.message.isprintable() and problem.hint.isprintable() and len(problem.message) < 1000):
                raise ValueError(f"not one plain line: {problem!r}") from refusal
        return refusal.problems[0].code
    same(migration, text)
    return "accepted"


def same(migration: Migration, text: str) -> None:
    """Raise AssertionError unless PyYAML, which here gives no word a type, reads what we do."""
    read = {key.replace("-", "_"): value for key, value in yaml.load(text, Loader=yaml.BaseLoader).items()}  # noqa: S506
    disks = read["vmdk"] if isinstance(read["vmdk"], list) else [read["vmdk"]]
    assert [Path(disk) for disk in disks] == list(migration.vmdk)
    assert all(disk.is_absolute() for disk in migration.vmdk)
    assert migration.vm_name == read.get("vm_name", "web01")
    assert set(read) <= set(Migration.model_fields)


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, _: attempt(number, corpus), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=50_000))
