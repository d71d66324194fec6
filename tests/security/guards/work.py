"""What bounds the work and the memory that one job causes, and what stays on record of it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

luks = partial(Cut, "hyper2kvmd/volumes/luks.py")
lvm = partial(Cut, "hyper2kvmd/volumes/lvm.py")
attempts = partial(Cut, "hyper2kvmd/jobs/attempts.py")
changes = partial(Cut, "hyper2kvmd/jobs/changes.py")
progress = partial(Cut, "hyper2kvmd/progress.py")
guest = partial(Cut, "hyper2kvmd/model/guest.py")
key_files = partial(Cut, "hyper2kvmd/disk/key_files.py")
vmdk = partial(Cut, "hyper2kvmd/disk/sources/vmdk/source.py")
mandate = partial(Cut, "hyper2kvmd/host/mandate.py")
spool = partial(Cut, "hyper2kvmd/daemon/spool.py")
dropped = partial(Cut, "hyper2kvmd/daemon/dropped.py")

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
    *each(
        "test_extents.py::test_extents_without_end",
        Cut("hyper2kvmd/disk/sources/vmdk/descriptor.py", "parse_descriptor", "if LARGEST_NUMBER_OF_EXTENTS", NEVER),
    ),
    *each(
        "test_extents.py::test_extents_without_end_in_a_chain", vmdk("open_vmdk", "if LARGEST_NUMBER_OF_EXTENTS", NEVER)
    ),
    *each("test_extents.py::test_extents_with_bytes_in_common", vmdk("open_vmdk", "call _require_apart", GONE)),
    *each(
        "test_extents.py::test_a_file_that_is_named_again_is_judged_once",
        vmdk("Opening.open", "if checked", ALWAYS),
    ),
    *each(
        "test_extents.py::test_a_disk_of_another_name_is_refused_before_others_are_opened",
        Cut("hyper2kvmd/disk/sources/opened.py", "Sources.open", "call _require_apart", GONE),
    ),
    *each(
        "test_extents.py::test_a_path_without_end",
        Cut("hyper2kvmd/host/way.py", "way_to", "if MAX_STEPS", NEVER),
    ),
    *each(
        "test_extents.py::test_names_in_a_folder_that_may_be_searched_and_not_listed",
        mandate("Mandate.names_in", "call may", ALWAYS),
    ),
    *each(
        "test_extents.py::test_names_in_a_folder_that_takes_the_place_of_another",
        mandate("Mandate.names_in", "call open", "os.open(folder, os.O_RDONLY)"),
    ),
    *each(
        "test_extents.py::test_a_folder_of_many_files",
        mandate("Mandate.names_in", "call islice", "$1"),
    ),
    # ---- files in the spool
    *each(
        "test_crowds.py::test_a_directory_that_takes_the_place_of_a_file",
        spool("Spool._claim", "if S_ISDIR", NEVER),
    ),
    *each(
        "test_crowds.py::test_files_under_leases_are_not_taken",
        dropped("being_written", "except BlockingIOError #1", "ZeroDivisionError"),
    ),
    *each(
        "test_crowds.py::test_a_claimed_file_is_not_held_for_ever",
        spool("Spool._fresh_claims", "operand ACTIVE_SECONDS", NEVER),
    ),
    *each(
        cases("test_crowds.py::test_a_claimed_file_is_not_held_for_ever", "lease"),
        dropped("_read", "except PermissionError", "PermissionError"),
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
        "test_record.py::test_a_job_that_has_succeeded_keeps_little",
        attempts("Attempts.succeed", "call keep_for_outcome", GONE),
    ),
    *each(
        (
            "test_record.py::test_what_a_stage_made_is_forgotten_with_its_use[cancelled in the queue]",
            "test_record.py::test_a_job_that_is_cancelled_in_the_queue",
        ),
        attempts("Attempts.forget_finished_stages", "call forget_stages", GONE),
    ),
    *each(
        "test_record.py::test_a_job_that_is_cancelled_in_the_queue",
        Cut(
            "hyper2kvmd/daemon/conclusions.py",
            "Conclusions.tidy_cancelled",
            "call forget_finished_stages",
            "self._ledger.call(self._ledger.store.paused)",
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
        "test_record.py::test_checksums_are_not_on_record",
        Cut("hyper2kvmd/model/machine.py", "MachineDisk._not_on_record", "if COMPACT", NEVER),
    ),
    *each(
        "test_record.py::test_a_disk_of_too_many_details",
        Cut("hyper2kvmd/worker.py", "_require_recordable", "if RECORD_LIMIT", NEVER),
    ),
    *each(
        "test_record.py::test_a_directory_is_on_record_once",
        Cut("hyper2kvmd/model/disks.py", "SourceDisk._named_beside", "if COMPACT", NEVER),
    ),
    *each("test_record.py::test_events_without_end", attempts("_claimed", "call forget_early_events", GONE)),
    *each("test_record.py::test_warnings_without_end", progress("Context.warn", "if MAX_WARNINGS #1", ALWAYS)),
    *each("test_record.py::test_a_long_warning", progress("warning_text", "call shortened", "$1")),
    *each("test_record.py::test_a_long_problem", progress("problem", "call shortened", "$1")),
    *each(
        "test_record.py::test_a_guest_of_many_words",
        guest("Guest.shortened", "keyword fstab_before", "self.fstab_before"),
        guest("Guest.shortened", "keyword changes", "self.changes"),
        guest("Guest.shortened", "keyword warnings", "self.warnings"),
        Cut("hyper2kvmd/stages/repair.py", "repair_disks", "call shortened", "guest"),
    ),
)
