"""What guards the service: from images, guests, YAML and those who submit it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

NAIVE = """'json:{"driver": "' + fmt + '", "file": {"driver": "file", "filename": "' + str(path) + '"}}'"""
"""JSON put together by hand."""
VETTED = "test_images.py::test_refused_by_name_before_a_tool_runs"
TEXT = "test_yaml.py::test_refused_soon_in_little_memory_on_plain_lines"
TRAP = "test_guests.py::test_a_trap_stays_inside_the_guest"
NEIGHBOUR = "test_submitter.py::test_a_neighbour_reaches_nothing"
RIGHTS = "test_submitter.py::test_rights_are_judged_as_the_kernel_does"
AMBIGUOUS = (
    "a name that virsh takes for an ID",
    "a name that virsh takes for a UUID",
    "a name that virsh takes for a UUID, with hyphens elsewhere",
)
LOGGED = "test_texts.py::test_a_guests_words_are_one_line_of_the_log"
SHOWN = "test_texts.py::test_a_guests_words_mean_nothing_on_any_page"

dropped = partial(Cut, "hyper2kvmd/daemon/dropped.py")
files = partial(Cut, "hyper2kvmd/disk/files.py")
descriptor = partial(Cut, "hyper2kvmd/disk/sources/vmdk/descriptor.py")
grains = partial(Cut, "hyper2kvmd/disk/sources/vmdk/grains.py")
qcow2 = partial(Cut, "hyper2kvmd/disk/sources/foreign/qcow2.py")
qemu_img = partial(Cut, "hyper2kvmd/disk/qemu/qemu_img.py")
confine = partial(Cut, "hyper2kvmd/host/confine.py")
mandate = partial(Cut, "hyper2kvmd/host/mandate.py")
person = partial(Cut, "hyper2kvmd/host/person.py")
plan = partial(Cut, "hyper2kvmd/stages/plan.py")
spool = partial(Cut, "hyper2kvmd/daemon/spool.py")
folders = partial(Cut, "hyper2kvmd/daemon/folders.py")
yaml = partial(Cut, "hyper2kvmd/yaml_source.py")
binding = partial(Cut, "hyper2kvmd/yaml_binding.py")
model = partial(Cut, "hyper2kvmd/model/asked.py")
spec = partial(Cut, "hyper2kvmd/spec.py")
batch = partial(Cut, "hyper2kvmd/spec_batch.py")
translation = partial(Cut, "hyper2kvmd/spec_translation.py")
root = partial(Cut, "hyper2kvmd/guest/files/root.py")
journal = partial(Cut, "hyper2kvmd/daemon/journal.py")
pages = partial(Cut, "hyper2kvmd/daemon/pages/render.py")

BACKED = ("backing file", "backing json:")
ALLOWED = mandate("Mandate.open", "call require_below", GONE)
CLOSED = mandate("Mandate.open", "if closed", NEVER)
ALLOWED_AS_OPENED = mandate("Mandate.require", "call require_below", GONE)
NO_LINK = dropped("_read", "mention O_NOFOLLOW", "0")
ANYTHING = dropped("_read", "argument S_ISREG lstat", ALWAYS)
ANYTHING_OPENED = dropped("_read", "argument S_ISREG #2", ALWAYS)
ALIAS = yaml("_Parser._node", "then AliasEvent", "return None")
ANCHOR = yaml("_Parser._node", "if anchor", NEVER)
MERGE = yaml("_Parser._mapping", "if <<", NEVER)
ONE_LINE = journal("_OneLine.formatMessage", "call join", "record.message")
PRINTABLE = journal("_printable", "if isprintable", ALWAYS)

GUARDS: tuple[Guard, ...] = (
    # ---- images
    *each(
        cases(VETTED, "absolute extent", "extent above", "extent below", "extent fat:", "extent json: as QEMU's own"),
        Cut("hyper2kvmd/disk/sources/vmdk/files.py", "is_plain_name", "operand /", ALWAYS),
    ),
    *each(cases(VETTED, "extent json:"), descriptor("parse_descriptor", "if EXTENT_LIKE", NEVER)),
    *each(cases(VETTED, "device mapping"), descriptor("check_descriptor", "operand EXTENT_TYPES", NEVER)),
    *each(cases(VETTED, "extent is a link", "source is a link"), mandate("Mandate.open", "mention O_NOFOLLOW", "0")),
    *each(
        cases(VETTED, "extent is a FIFO", "extent is a device"),
        files("open_file", "if S_ISREG", NEVER),
    ),
    *each(
        cases(VETTED, "parent"),
        descriptor("Descriptor.has_parent", "return NO_PARENT", NEVER),
    ),
    *each(
        cases(VETTED, "header with a flat descriptor"),
        descriptor("check_descriptor", "if SPARSE", NEVER),
    ),
    *each(cases(VETTED, "header of nothing"), descriptor("check_size", "if 0", NEVER)),
    *each(
        cases(VETTED, "backing file", "backing json:", "backing nbd:"), qcow2("read_qcow2", "before has_parent", NEVER)
    ),
    *each(
        cases(VETTED, "data file", "data file by name alone"),
        qcow2("_check_features", "if DATA_FILE", NEVER),
    ),
    *each(cases(VETTED, "data file by name alone"), qcow2("_check_features", "operand DATA_FILE_NAME", NEVER)),
    *each(
        cases(VETTED, "header in a raw disk"),
        Cut("hyper2kvmd/disk/sources/opening.py", "_format_of", "before _differs", NEVER),
    ),
    *each(cases(VETTED, "inflates beyond deflate"), grains("GrainMap.survey", "call max", "$1")),
    *each(cases(VETTED, "directory without end"), grains("GrainMap.survey", "if LARGEST_DIRECTORY", NEVER)),
    *each(
        "test_images.py::test_a_tool_that_opened_it_would_not_reach_the_secret",
        confine("main", "call restrict", GONE),
    ),
    *each(
        cases("test_images.py::test_a_disk_swapped_behind_our_back_is_not_what_a_tool_opens", "qcow2"),
        Cut("hyper2kvmd/disk/sources/foreign/source.py", "ForeignSource._serve", "keyword opened", GONE),
        qemu_img("convert", "call node", "$0(source.path, $2)"),
    ),
    *each(
        "test_images.py::test_a_vmdk_swapped_behind_our_back_is_not_what_qemu_compares",
        Cut("hyper2kvmd/stages/convert.py", "_second_opinion", "keyword opened", GONE),
    ),
    *each(
        cases("test_changing_images.py::test_a_disk_that_is_filled_while_it_is_copied", "raw"),
        Cut("hyper2kvmd/disk/engine/copy.py", "_Copy._checked", "if offered", NEVER),
    ),
    *each(
        cases("test_changing_images.py::test_a_disk_that_is_filled_while_it_is_copied", "qcow2"),
        Cut("hyper2kvmd/disk/sources/foreign/source.py", "ForeignSource.copy_into", "if most", NEVER),
    ),
    *each(
        cases("test_changing_images.py::test_a_disk_that_is_filled_while_it_is_copied", "vhdx"),
        Cut("hyper2kvmd/disk/sources/block_map/source.py", "BlockMapSource.copy_into", "if most", NEVER),
    ),
    *each(
        "test_changing_images.py::test_a_disk_that_holds_nothing_where_samples_could_be_expected",
        Cut("hyper2kvmd/disk/sources/sampling.py", "content_bytes", "call SystemRandom", "random.Random(units)"),
    ),
    *each(
        "test_changing_images.py::test_a_checksum_of_holes_without_end",
        plan("_require_hashable", "operand holes", NEVER),
    ),
    *each("test_images.py::test_a_name_is_a_name", qemu_img("node", "return", NAIVE)),
    *each(
        (
            "test_changing_images.py::test_a_backing_file_that_is_written_after_the_image_was_vetted",
            *cases("test_images.py::test_a_tool_that_opened_it_would_not_reach_the_secret", *BACKED),
        ),
        qemu_img("node", "if qcow2", NEVER),
    ),
    *each(
        "test_changing_images.py::test_a_qcow2_of_a_submitter_where_qemu_cannot_be_confined",
        Cut("hyper2kvmd/disk/sources/opening.py", "open_source", "if confinement_available", NEVER),
    ),
    *each(
        "test_images.py::test_a_confined_tool_has_no_socket_no_other_file_and_no_new_privileges",
        confine("main", "call restrict", GONE),
        confine("main", "call cut_off", GONE),
        confine("cut_off", "item EQUAL 2", "($0, 0, $2, $3)"),
        confine("cut_off", "item EQUAL 1", "($0, 0, $2, $3)"),
        confine("main", "if PR_SET_NO_NEW_PRIVS", NEVER),
    ),
    *each(
        "test_images.py::test_a_confined_tool_writes_one_file_and_no_further_than_told",
        Cut("hyper2kvmd/host/run.py", "_command", "item file_size", GONE),
        confine("main", "call restrict", GONE),
    ),
    *each(
        "test_images.py::test_a_confined_tool_that_never_ends_is_ended",
        Cut("hyper2kvmd/host/run.py", "_command", "item cpu", GONE),
    ),
    # ---- those who submit
    *each(
        (
            "test_submitter.py::test_a_disk_that_only_the_service_may_read",
            "test_submitter.py::test_an_extent_that_is_linked_to_anothers_disk",
        ),
        mandate("Mandate.require", "if may READ", NEVER),
        files("open_file", "call require", GONE),
        Cut("hyper2kvmd/daemon/scheduler.py", "Scheduler._start", "keyword submitter", GONE),
    ),
    *each(
        "test_submitter.py::test_a_disk_in_a_folder_that_is_closed_to_them",
        (CLOSED, mandate("Mandate.require", "if may SEARCH", NEVER)),
    ),
    *each(
        "test_submitter.py::test_what_lies_in_a_closed_folder_is_not_even_said_to_exist",
        CLOSED,
    ),
    *each(
        "test_submitter.py::test_a_folder_that_they_may_search_and_the_service_may_not",
        Cut("hyper2kvmd/host/way.py", "way_to", "value EACCES", "errno.ENOENT"),
    ),
    *each(
        "test_submitter.py::test_the_same_text_of_somebody_else_is_no_duplicate",
        dropped("content_key", "item submitter", GONE),
    ),
    *each(
        "test_submitter.py::test_a_key_that_only_the_service_may_read",
        Cut("hyper2kvmd/disk/key_files.py", "read_keys", "argument mandate", GONE),
    ),
    *each(
        cases("test_submitter.py::test_a_source_outside_of_what_is_allowed", "absent-/srv/none.raw"),
        ALLOWED,
    ),
    *each(
        (
            "test_submitter.py::test_a_source_outside_of_what_is_allowed",
            "test_submitter.py::test_a_folder_that_leads_out_of_what_is_allowed",
        ),
        (ALLOWED, ALLOWED_AS_OPENED),
    ),
    *each("test_submitter.py::test_a_folder_swapped_for_a_link_while_it_is_opened", (ALLOWED, ALLOWED_AS_OPENED)),
    *each(
        cases("test_submitter.py::test_an_output_outside_of_what_is_allowed", "conversion_dir"),
        Cut("hyper2kvmd/host/workspace.py", "real_conversion_dir", "if allowed", NEVER),
    ),
    *each(
        cases("test_submitter.py::test_an_output_outside_of_what_is_allowed", "output_dir"),
        (
            Cut("hyper2kvmd/stages/bench.py", "with_real_directories", "call require_below", GONE),
            Cut("hyper2kvmd/host/destination.py", "_require_allowed", "call require_below", GONE),
        ),
    ),
    *each(
        "test_submitter.py::test_a_submission_is_its_peers_own",
        Cut("hyper2kvmd/daemon/submitting.py", "_submissions", "call Origin", 'Origin(submitter="root", uid=0)'),
        Cut("hyper2kvmd/daemon/submitting.py", "_submissions", "keyword uid", GONE),
    ),
    *each(
        "test_submitter.py::test_a_name_that_belongs_to_somebody_else_by_now",
        person("Person.who_submitted", "argument submitter_uid", "pwd.getpwnam(order.submitter).pw_uid"),
    ),
    *each("test_submitter.py::test_a_spool_file_is_its_owners_by_their_uid", spool("Spool._read", "keyword uid", GONE)),
    *each(
        cases(NEIGHBOUR, "control.sock"),
        Cut("hyper2kvmd/daemon/listening.py", "listen", "argument 0o117", "0"),
    ),
    *each(
        cases(NEIGHBOUR, "state/jobs.sqlite3"),
        (
            Cut("hyper2kvmd/daemon/service.py", "UMASK", "value", "0o022"),
            Cut("hyper2kvmd/daemon/opening.py", "hold", "keyword mode", "0o755"),
            Cut("hyper2kvmd/jobs/sqlite.py", "draft_of", "argument 0o600", "0o644"),
        ),
    ),
    *each(cases(NEIGHBOUR, "spool/done"), folders("_make", "call chmod", "$0(0o777)")),
    *each(
        RIGHTS,
        person("Person.may", "call entries", "()"),
        person("Person.may", "value file entries", "$0"),
        person("Person.may", "return st_mode #2", ALWAYS),
        person("Person.may", "return st_mode #2", NEVER),
    ),
    *each(
        "test_submitter.py::test_somebody_whom_nobody_knows_has_the_rights_of_others",
        person("Person.of", "call Person NOBODY_AT_ALL", "$0($1, 0, $3)"),
    ),
    # ---- the spool
    *each(
        "test_submitter.py::test_a_yaml_that_somebody_else_may_have_written",
        dropped("_read", "operand S_IWOTH", NEVER),
        dropped("_read", "mention S_IWGRP", "0"),
        dropped("_asked_by", "value may", ALWAYS),
    ),
    *each(
        "test_spool.py::test_what_is_no_plain_small_file_of_its_own_is_rejected",
        (NO_LINK, ANYTHING, ANYTHING_OPENED),
        dropped("_read", "argument st_nlink", ALWAYS),
        dropped("_read", "argument st_size MAX_TEXT", ALWAYS),
        dropped("_text", "argument utf-8-sig", '"latin-1"'),
    ),
    *each(
        "test_spool.py::test_a_file_swapped_for_a_link_is_never_followed",
        (NO_LINK, ANYTHING),
    ),
    *each(
        "test_submitter.py::test_a_yaml_that_an_acl_lets_somebody_else_write",
        dropped("_read", "operand entries", NEVER),
    ),
    *each(
        "test_submitter.py::test_a_closed_folder_exchanged_for_an_open_one_while_a_disk_is_opened",
        (
            CLOSED,
            Cut("hyper2kvmd/host/way.py", "way_to", "if SEARCH", NEVER),
            mandate("Mandate.require", "for lineage", "()"),
        ),
    ),
    *each(
        "test_spool_rights.py::test_a_file_of_another_user_that_may_not_be_read_is_rejected_with_the_remedy",
        dropped("_read", "except PermissionError", "FileExistsError"),
    ),
    *each(
        "test_spool_rights.py::test_what_may_not_be_moved_is_told_once_and_stops_no_other",
        Cut("hyper2kvmd/daemon/complaints.py", "Complaints.about", "except OSError", "KeyError"),
    ),
    *each(
        "test_spool_rights.py::test_a_folder_with_other_rights_gets_the_right_ones",
        folders("prepare", "call _correct", GONE),
        folders("_set", "call chmod", GONE),
        folders("_set", "call chown", GONE),
    ),
    *each(
        "test_spool_rights.py::test_a_folder_of_a_group_without_the_daemon_is_refused",
        folders("_set", "if S_IMODE", NEVER),
    ),
    *each(
        "test_spool_rights.py::test_a_folder_of_somebody_else_is_refused",
        folders("_correct", "if st_uid", NEVER),
    ),
    *each(
        "test_spool_rights.py::test_a_spool_directory_of_the_daemon_alone_is_corrected",
        folders("_check_top", "call _set", GONE),
    ),
    *each(
        "test_spool_rights.py::test_a_directory_that_others_use_is_no_spool",
        folders("_check_top", "operand S_ISVTX", ALWAYS),
        folders("_check_top", "operand SpoolFolder", ALWAYS),
        folders("_check_top", "value strangers_may_write", ALWAYS),
    ),
    *each(
        "test_spool_rights.py::test_folders_that_are_missing_are_made_as_a_package_makes_them",
        folders("_make", "call chmod", GONE),
        folders("_make", "call chown", GONE),
        folders("_make", "call let_group_read_new_files", GONE),
    ),
    *each(
        "test_spool_rights.py::test_a_folder_that_cannot_be_made_for_submitters_is_missing_still",
        folders("_make", "call rmdir", GONE),
        folders("_make", "call chown", GONE),
    ),
    # ---- YAML
    *each(cases(TEXT, "billion laughs", "an alias of itself"), (ALIAS, ANCHOR)),
    *each(cases(TEXT, "merge keys"), (ALIAS, ANCHOR, MERGE)),
    *each(cases(TEXT, "a constructor", "a tag that types"), yaml("_Parser._node", "if tag", NEVER)),
    *each(cases(TEXT, "a key given twice"), yaml("_Parser._mapping", "if entries", NEVER)),
    *each(cases(TEXT, "the same key, spelled twice"), translation("canonical", "if setdefault", NEVER)),
    *each(cases(TEXT, "a second document"), spec("_clash", "if names", NEVER)),
    *each(cases(TEXT, "a thousand machines"), batch("find_machines", "if MAX_MACHINES", NEVER)),
    *each(cases(TEXT, "many keys for many machines"), batch("_members", "if MAX_MERGED_NODES", NEVER)),
    *each(cases(TEXT, "a million brackets", "nested mappings"), yaml("_Parser._node", "if MAX_DEPTH", NEVER)),
    *each(cases(TEXT, "many keys"), yaml("_Parser._node", "if MAX_NODES", NEVER)),
    *each(cases(TEXT, "a huge text"), yaml("read_file", "if MAX_BYTES", NEVER)),
    *each(cases(TEXT, "no UTF-8"), yaml("read_file", "argument utf-8", '"utf-8", "replace"')),
    *each(
        cases(TEXT, "characters that turn text around", "a line break of its own kind"),
        yaml("_parser_of", "call FORBIDDEN", GONE),
    ),
    *each(cases(TEXT, "control characters"), yaml("_Parser._scalar", "call CONTROL", GONE)),
    *each(cases(TEXT, "a huge number", "a number that is a time"), binding("WHOLE", "argument", '".*"')),
    *each(
        cases(TEXT, "a name that leads out", "a name that is an option"),
        model("Migration.vm_name", "keyword pattern", GONE),
    ),
    *each(
        cases(TEXT, "an output that leads out"),
        model("Migration.to_output", "keyword pattern", GONE),
    ),
    *each(
        cases(TEXT, *AMBIGUOUS),
        spec("_conflicts", "if AMBIGUOUS_NAME", NEVER),
    ),
    *each(
        cases(TEXT, "a name that virsh takes for a UUID, with hyphens elsewhere"),
        spec("AMBIGUOUS_NAME", "argument", 'r"[0-9]+|[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}"'),
    ),
    *each(
        cases(
            TEXT,
            "a program as libvirt",
            "a socket as libvirt",
            "an option as libvirt's host",
            "an option behind libvirt's user",
            "a host file as libvirt",
        ),
        spec("_conflicts", "if LIBVIRT_URI", NEVER),
    ),
    # ---- guests
    *each(
        (TRAP, "test_guests.py::test_a_folder_swapped_for_a_link_while_it_is_used"),
        root("RESOLUTION", "mention RESOLVE_IN_ROOT", "0"),
    ),
    *each(cases(TRAP, "links in a circle"), root("ConfinedRoot._copy_metadata", "if S_ISLNK", NEVER)),
    *each(
        cases(TRAP, "a FIFO", "a device", "a folder"),
        root("ConfinedRoot._require_regular", "if S_ISREG", NEVER),
    ),
    *each(
        cases(TRAP, "a file without end"),
        root("ConfinedRoot.read", "argument 1", "$0"),
    ),
    *each(cases(TRAP, "two names"), root("_Draft.install", "if labelled", NEVER)),
    *each(cases(TRAP, "setuid"), root("ConfinedRoot._copy_metadata", "argument S_IMODE", "0o644")),
    *each(
        cases(TRAP, "etc is a link to /", "two names"),
        Cut("hyper2kvmd/helper/helper.py", "mount", "before id-map", NEVER),
    ),
    # ---- words
    *each(cases(LOGGED, "a terminal's escape", "text turned around", "a NUL"), PRINTABLE),
    *each(
        cases(LOGGED, "a line break", "a carriage return", "a line separator", "a journal priority"),
        (ONE_LINE, PRINTABLE),
    ),
    *each(
        "test_texts.py::test_a_files_name_means_nothing_anywhere", pages("_environment", "keyword autoescape", "False")
    ),
    *each(cases(SHOWN, "markup"), pages("_environment", "keyword autoescape", "False")),
    *each(cases(SHOWN, "a terminal's escape", "text turned around"), pages("printable", "if Markup", ALWAYS)),
    *each(
        "test_texts.py::test_a_browser_is_told_to_run_nothing",
        Cut("hyper2kvmd/daemon/pages/server.py", "HEADERS", "item Content-Security-Policy", GONE),
    ),
    *each(
        "test_texts.py::test_the_page_and_the_metrics_listen_here_alone",
        Cut("hyper2kvmd/config.py", "DaemonConfig.metrics_listen", "keyword default", '"0.0.0.0:9180"'),
    ),
    *each(
        "tests/unit/test_report.py::test_a_guest_cannot_speak_in_the_reports_own_voice",
        Cut("hyper2kvmd/markdown.py", "plain_part", "call escape", "$1"),
    ),
)

CLIMBS = "the kernel: `..` of a detached mount's root is that root"
OTHERS = {
    f"tests/security/{VETTED}[extent nbd:]": "nothing here knows a protocol: a name is a file's",
    f"tests/security/{TEXT}[a NUL]": "PyYAML refuses it as well",
    f"tests/security/{TRAP}[a link that climbs]": CLIMBS,
    f"tests/security/{TRAP}[a folder that climbs]": CLIMBS,
}
