"""What bounds the work and the memory that one job causes, and what stays on record of it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, each

luks = partial(Cut, "hyper2kvmd/volumes/luks.py")
lvm = partial(Cut, "hyper2kvmd/volumes/lvm.py")
key_files = partial(Cut, "hyper2kvmd/disk/key_files.py")

TRIES = luks("_unlock", "call spend", GONE)
MAPPED = lvm("_Group.stretches", "call map_pieces 1", GONE)
OF_STRIPES = lvm("_Group._segment", "call map_pieces", GONE)
RESULTING = lvm("_Group.stretches", "call map_pieces len", GONE)

GUARDS: tuple[Guard, ...] = (
    # ---- disks
    *each(
        (
            "test_work.py::test_containers_and_keys_share_one_budget",
            "test_work.py::test_cheap_derivations_without_end_share_it_as_well",
        ),
        TRIES,
    ),
    *each(
        "test_work.py::test_cheap_derivations_without_end_share_it_as_well",
        luks("_seconds_of", "mention SLOT_SECONDS", "0"),
    ),
    *each(
        "test_work.py::test_a_digest_of_many_blocks_costs_what_it_costs",
        luks("_Derivation.seconds", "value digest_size", "1"),
    ),
    *each("test_work.py::test_volumes_in_volumes_grow_exponentially", (MAPPED, OF_STRIPES, RESULTING)),
    *each(
        "test_work.py::test_metadata_of_many_physical_volumes",
        lvm("_Texts.accept", "operand METADATA_LIMIT", NEVER),
    ),
    *each(
        "test_work.py::test_reading_metadata_is_paid_for_each_physical_volume",
        lvm("_metadata", "call spend", GONE),
    ),
    *each(
        "test_work.py::test_copies_split_in_many_places",
        Cut("hyper2kvmd/volumes/mapping.py", "mirrored", "if LEGS_LIMIT", NEVER),
    ),
    # ---- key files
    *each(
        "test_work.py::test_more_key_files_than_a_machine_needs",
        Cut("hyper2kvmd/model/asked.py", "Migration.luks_keyfile", "keyword max_length", GONE),
    ),
    *each("test_work.py::test_a_key_file_named_again_and_again", key_files("read_keys", "if found", ALWAYS)),
    *each(
        "test_work.py::test_key_files_that_are_too_large_together",
        key_files("_require_usable", "if TOTAL_LIMIT", NEVER),
    ),
)
