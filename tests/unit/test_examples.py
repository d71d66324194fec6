"""Each example is what it says: a file that works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.model.asked import SOURCE_KEYS

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = {"workstation", "ci"}
"""For one-shot runs, with relative paths; the others could lie in a spool."""


def test_there_is_one_for_each_scenario() -> None:
    names = {path.stem for path in EXAMPLES.iterdir()}
    assert names == {
        "workstation",
        "shared-server",
        "service",
        "large-disk",
        "container",
        "ci",
        "several-disks",
        "batch",
        "ova",
        "windows",
    }


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.stem)
def test_examples_parse(path: Path) -> None:
    machines = spec.load([path], base=Path("/home/me") if path.stem in HERE else None)
    assert (len(machines) > 1) == (path.stem == "batch")
    for asked in (machine.migration for machine in machines):
        assert asked.vm_name in asked.sources[0].name
        given = asked.model_fields_set - {"cmd"}
        assert given & {*SOURCE_KEYS} and len(given) > 3
    assert not any(machine.notes for machine in machines)
