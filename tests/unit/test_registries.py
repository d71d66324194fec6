"""Registries and what their keys come from."""

from __future__ import annotations

from typing import get_args

from hyper2kvmd.machines.reader import READERS
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration, TargetName
from hyper2kvmd.targets.choice import TARGETS


def test_each_key_that_names_a_source_has_a_reader() -> None:
    assert set(READERS) == set(SOURCE_KEYS) <= set(Migration.model_fields)


def test_each_target_that_can_be_named_exists() -> None:
    assert set(TARGETS) == set(get_args(TargetName))
