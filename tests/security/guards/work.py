"""What bounds the work and the memory that one job causes, and what stays on record of it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, each

luks = partial(Cut, "hyper2kvmd/volumes/luks.py")
lvm = partial(Cut, "hyper2kvmd/volumes/lvm.py")
store = partial(Cut, "hyper2kvmd/jobs/store.py")
changes = partial(Cut, "hyper2kvmd/jobs/changes.py")
progress = partial(Cut, "hyper2kvmd/progress.py")
guest = partial(Cut, "hyper2kvmd/model/guest.py")
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
    # ---- what stays on record
    *each(
        "test_record.py::test_what_a_stage_made_is_forgotten_with_its_use[succeeded]",
        store("Store.succeed", "call forget_products", GONE),
    ),
    *each(
        (
            "test_record.py::test_what_a_stage_made_is_forgotten_with_its_use[cancelled in the queue]",
            "test_record.py::test_a_job_that_is_cancelled_in_the_queue",
        ),
        store("Store.forget_finished_stages", "call forget_stages", GONE),
    ),
    *each(
        "test_record.py::test_a_job_that_is_cancelled_in_the_queue",
        Cut(
            "hyper2kvmd/daemon/scheduler.py",
            "Scheduler._keep_or_remove_of",
            "call forget_finished_stages",
            "asyncio.sleep(0)",
        ),
    ),
    *each(
        "test_record.py::test_a_job_whose_cancellation_the_daemon_did_not_survive",
        Cut("hyper2kvmd/daemon/scheduler.py", "Scheduler.recover", "if CANCELLED", NEVER),
    ),
    *each(
        "test_record.py::test_a_published_job_keeps_little",
        changes("forget_stages", "call without_content", "finished_stages(connection, job_id)"),
    ),
    *each(
        "test_record.py::test_a_published_image_that_is_gone_by_now",
        Cut("hyper2kvmd/worker.py", "_valid_products", "operand disks", NEVER),
    ),
    *each(
        "test_record.py::test_a_disk_of_too_many_details",
        Cut("hyper2kvmd/worker.py", "_require_recordable", "if RECORD_LIMIT", NEVER),
    ),
    *each(
        "test_record.py::test_a_directory_is_on_record_once",
        Cut("hyper2kvmd/model/disks.py", "SourceDisk._named_beside", "if COMPACT", NEVER),
    ),
    *each("test_record.py::test_events_without_end", store("Store.claim", "call forget_early_events", GONE)),
    *each("test_record.py::test_warnings_without_end", progress("Context.warn", "if MAX_WARNINGS #1", ALWAYS)),
    *each("test_record.py::test_a_long_warning", progress("Context.warn", "call shortened", "$1")),
    *each("test_record.py::test_a_long_problem", progress("problem", "call shortened", "$1")),
    *each(
        "test_record.py::test_a_guest_of_many_words",
        guest("Guest.shortened", "keyword fstab_before", "self.fstab_before"),
        guest("Guest.shortened", "keyword changes", "self.changes"),
        guest("Guest.shortened", "keyword warnings", "self.warnings"),
        Cut("hyper2kvmd/stages/repair.py", "repair_disks", "call shortened", "guest"),
    ),
)
