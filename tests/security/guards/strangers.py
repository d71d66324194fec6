"""What bounds the connections, the log lines and the files of clients and submitters without end."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

LARGE = "test_strangers.py::test_a_request_that_is_too_large"

control = partial(Cut, "hyper2kvmd/daemon/control.py")
doors = partial(Cut, "hyper2kvmd/daemon/doors.py")
incoming = partial(Cut, "hyper2kvmd/daemon/incoming.py")
journal = partial(Cut, "hyper2kvmd/daemon/journal.py")
requests = partial(Cut, "hyper2kvmd/daemon/requests.py")
quota = partial(Cut, "hyper2kvmd/daemon/quota.py")
spec = partial(Cut, "hyper2kvmd/spec.py")
spool = partial(Cut, "hyper2kvmd/daemon/spool.py")
putting_away = partial(Cut, "hyper2kvmd/daemon/putting_away.py")
questions = partial(Cut, "hyper2kvmd/jobs/questions.py")
submissions = partial(Cut, "hyper2kvmd/jobs/submissions.py")
web = partial(Cut, "hyper2kvmd/daemon/pages/server.py")
markdown = partial(Cut, "hyper2kvmd/markdown.py")
shared = partial(Cut, "hyper2kvmd/daemon/pages/shared.py")

TEXTS = "tests/unit/test_markdown.py::test_nothing_"

GUARDS: tuple[Guard, ...] = (
    # ---- texts
    *each(
        f"{TEXTS}is_a_link_or_emphasis",
        markdown("plain_part", "call ADDRESS", "$2"),
        markdown("plain_part", "call SPECIAL", "$2"),
    ),
    *each(
        f"{TEXTS}controls_a_terminal_or_turns_the_text_around",
        markdown("plain_part", "call printable", "$1"),
        markdown("code", "call printable", "$1"),
        markdown("fenced", "call printable", "$1"),
    ),
    *each(
        "tests/unit/test_store.py::test_a_number_that_no_row_has_is_unknown_to_every_database",
        Cut("hyper2kvmd/jobs/changes.py", "one", "if MAX_ID", NEVER),
        Cut("hyper2kvmd/jobs/lists.py", "Lists.batch", "if MAX_ID", NEVER),
    ),
    *each(
        "tests/integration/daemon/test_pages.py::test_no_page_says_which_accounts_the_host_has",
        web("Web._uid_of", "if found", NEVER),
    ),
    # ---- connections
    *each(
        "test_strangers.py::test_more_connections_than_descriptors",
        doors("BoundedServer._full", "return MAX_CONNECTIONS", NEVER),
    ),
    *each(
        "test_strangers.py::test_no_descriptor_for_a_connection",
        doors("BoundedServer._accept", "except OSError", "ZeroDivisionError"),
    ),
    *each(
        "test_strangers.py::test_a_request_that_never_comes",
        (
            doors("_Accepted.overdue", "if busy", ALWAYS),
            doors("BoundedServer.__init__", "keyword keepalive_timeout", "3600"),
        ),
    ),
    *each(
        "test_strangers.py::test_a_body_that_never_comes",
        doors("_read_body", "call wait_for", "$1"),
    ),
    *each(
        "test_strangers.py::test_a_response_that_is_never_read",
        doors("_Accepted.overdue", "mention RESPONSE_SECONDS", "3600"),
        doors("_Accepted.abort", "call abort", "self._transport.close()"),
    ),
    *each(cases(LARGE, "line"), doors("BoundedServer.__init__", "keyword max_line_size", GONE)),
    *each(cases(LARGE, "field"), doors("BoundedServer.__init__", "keyword max_field_size", GONE)),
    *each(cases(LARGE, "fields without end"), doors("BoundedServer.__init__", "keyword max_headers", GONE)),
    *each(cases(LARGE, "body"), web("Web.application", "keyword client_max_size", "1 << 20")),
    *each(
        "test_strangers.py::test_a_request_in_progress_is_not_interrupted",
        doors("BoundedServer._close_longest_idle", "operand busy", ALWAYS),
    ),
    *each(
        "test_strangers.py::test_a_client_that_has_just_come_is_not_turned_out",
        doors("BoundedServer._close_longest_idle", "operand opened", ALWAYS),
    ),
    *each("test_strangers.py::test_clients_that_never_pause", doors("BoundedServer._end_if_full", "if _full", NEVER)),
    *each(
        "test_strangers.py::test_clients_that_ask_and_leave",
        doors("BoundedServer._release", "operand busy", ALWAYS),
    ),
    # ---- the log and the database
    *each(
        "test_strangers.py::test_bad_requests_in_the_log",
        journal("_Budget.spend", "return MAX_MESSAGES", ALWAYS),
        journal("Limit.filter", "value exc_info None", "record.exc_info"),
    ),
    *each(
        "test_strangers.py::test_page_requests_without_end",
        shared("Shared.get", "if stale", ALWAYS),
    ),
    *each(
        "test_strangers.py::test_a_list_of_jobs_that_are_all_as_large_as_can_be",
        control("Control._jobs", "call min", "$2"),
        requests("list_answer", "call in_a_thread", "__import__('asyncio').sleep(0, $2())"),
    ),
    # ---- locks
    *each(
        "test_locks_of_strangers.py::test_a_stranger_holds_no_lock_of_a_daemon",
        Cut("hyper2kvmd/file_lock.py", "keep_private", "if MODE", NEVER),
    ),
    *each(
        "test_locks_of_strangers.py::test_the_spool_of_root_is_locked_in_a_folder_of_the_service",
        Cut("hyper2kvmd/daemon/locks.py", "Locks.take", "if spool_dir", NEVER),
    ),
    # ---- files
    *each(
        "test_crowds.py::test_many_copies_of_one_file",
        putting_away("PuttingAway._places", "item job_id", GONE),
    ),
    *each(
        "test_crowds.py::test_a_file_with_thousands_of_errors",
        spec("_first", "if MAX_PROBLEMS", ALWAYS),
    ),
    *each(
        (
            "test_crowds.py::test_one_file_beside_five_hundred",
            "test_crowds.py::test_a_file_that_comes_after_five_hundred",
        ),
        quota("in_turn", "mention uid", "0"),
    ),
    *each(
        "test_crowds.py::test_a_file_that_comes_after_five_hundred",
        quota("MAX_IN_A_SCAN", "value", "1000"),
    ),
    *each(
        "test_crowds.py::test_files_of_one_submitter_in_their_order",
        quota("in_turn", "item mtime_ns", GONE),
        quota("in_turn", "item name_of", GONE),
    ),
    *each(
        "test_crowds.py::test_too_many_jobs_of_one_submitter_wait",
        quota("Quota._allowance", "return min", "$2"),
    ),
    *each(
        "test_crowds.py::test_too_many_files_of_one_submitter_within_an_hour",
        quota("Quota._allowance", "return min", "$1"),
    ),
    *each(
        "test_crowds.py::test_files_of_several_machines_do_not_pass_the_limit",
        quota("Quota._allowance", "if _full", NEVER),
        quota("Quota.has_room", "operand waiting", NEVER),
        quota("Quota.has_room", "return _full", "jobs <= waiting"),
        quota("Quota.count", "value _waiting", "0"),
    ),
    *each(
        "test_crowds.py::test_machines_count_for_the_limit_of_an_hour",
        quota("Quota.has_room", "operand hourly", NEVER),
        quota("Quota.count", "value _further", "0"),
    ),
    *each(
        "test_crowds.py::test_a_file_that_waits_for_room_is_read_once",
        spool("Spool._has_room", "call get", "length or 1"),
    ),
    *each(
        ("test_crowds.py::test_rejected_files_without_end", "test_crowds.py::test_failed_jobs_without_end"),
        putting_away("PuttingAway.put_away_ended", "call _forget_surplus", GONE),
        putting_away("PuttingAway._forget_surplus", "call forget_jobs", GONE),
        putting_away("PuttingAway._remove", "call unlink", GONE),
    ),
    *each(
        "test_crowds.py::test_rejected_files_without_end",
        putting_away("PuttingAway._remove", "call remove", GONE),
        questions("Questions.surplus", "item submitter", GONE),
    ),
    *each(
        cases("test_crowds.py::test_rejected_files_without_end", "duplicates"),
        submissions("record_duplicate", "if duplicate", ALWAYS),
    ),
    *each(
        "test_crowds.py::test_more_files_than_a_scan_reads",
        incoming("Incoming._next_names", "call islice", "$1"),
        incoming("Incoming._next_names", "then MAX_READ", "pass"),
        incoming("Incoming._watch_more", "if MAX_WATCHED", NEVER),
        incoming("Incoming._watch_more", "for _crowded", "$0"),
    ),
    *each(
        "test_crowds.py::test_a_directory_is_left_where_it_is",
        Cut("hyper2kvmd/daemon/names.py", "reason_to_ignore", "if S_ISDIR", NEVER),
    ),
    *each(
        "test_crowds.py::test_scans_in_quick_succession_take_no_file_before_its_time",
        incoming("Incoming._scan", "operand STABLE_SECONDS", ALWAYS),
    ),
    *each(
        "test_crowds.py::test_what_is_left_is_taken_at_once_when_it_may_be",
        quota("Quota.allows", "operand _later", ALWAYS),
        spool("Spool._claim_stable", "operand 0", ALWAYS),
    ),
    *each(
        "test_bad_files.py::test_bad_files_of_every_kind_stop_no_other",
        Cut("hyper2kvmd/yaml_source.py", "_Parser._scalar", "if found #1", NEVER),
    ),
    *each(
        "test_bad_files.py::test_an_unexpected_error_rejects_one_file",
        spool("Spool._read", "except Exception", "KeyError"),
    ),
    *each(
        "test_bad_files.py::test_a_renamed_file_is_taken_at_once_if_it_can_be_read",
        incoming("Incoming.expect", "if S_ISREG", NEVER),
    ),
    *each(
        "tests/integration/test_hooks.py::test_a_program_that_others_can_replace_is_refused",
        Cut("hyper2kvmd/host/hooks.py", "program_fault", "if _can_be_changed", NEVER),
    ),
)
