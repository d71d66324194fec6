"""What keeps submitters to their own jobs on the control socket, and strangers out."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

RIGHTS = "test_control_rights.py::test_"
VERBS = ("job", "events", "report", "cancel", "retry", "hold", "release", "set_priority")

callers = partial(Cut, "hyper2kvmd/daemon/callers.py")
control = partial(Cut, "hyper2kvmd/daemon/control.py")
doors = partial(Cut, "hyper2kvmd/daemon/doors.py")
listening = partial(Cut, "hyper2kvmd/daemon/listening.py")
operations = partial(Cut, "hyper2kvmd/jobs/operations.py")
quota = partial(Cut, "hyper2kvmd/daemon/quota.py")
report_file = partial(Cut, "hyper2kvmd/daemon/report_file.py")
submitting = partial(Cut, "hyper2kvmd/daemon/submitting.py")

GUARDS: tuple[Guard, ...] = (
    *each(f"{RIGHTS}a_submitter_has_their_own_jobs", listening("_allow", "call grant", GONE)),
    *each(
        cases(f"{RIGHTS}the_job_of_another_submitter_is_unknown", *VERBS),
        control("Control._visible", "if sees", NEVER),
    ),
    *each(
        f"{RIGHTS}a_list_has_the_submitters_own_jobs_only",
        control("Control._jobs", "keyword submitter_uid", GONE),
    ),
    *each(
        f"{RIGHTS}the_batch_of_another_submitter_is_unknown",
        control("Control._visible_batch", "if sees", NEVER),
        control("Control._batches", "keyword submitter_uid #1", GONE),
    ),
    *each(
        cases(f"{RIGHTS}the_queue_belongs_to_operators", "pause", "resume", "drain"),
        callers("Callers.require", "if who", NEVER),
    ),
    *each(f"{RIGHTS}a_submitter_may_only_lower_a_priority", control("Control._set_priority", "if wanted", NEVER)),
    *each(f"{RIGHTS}a_stranger_who_connects_is_refused", callers("Callers.require", "if NOBODY", NEVER)),
    *each(
        f"{RIGHTS}the_kernel_says_which_groups_a_caller_has",
        callers("peer", "call frozenset", "Person.of(uid).groups"),
    ),
    *each(
        f"{RIGHTS}the_status_for_a_submitter_names_no_machines_of_others",
        control("shown_to", "keyword running", GONE),
        control("shown_to", "keyword ignored", GONE),
    ),
    *each(
        f"{RIGHTS}a_thousand_silent_connections_of_a_submitter",
        doors("BoundedServer._full", "return MAX_CONNECTIONS", NEVER),
    ),
    *each(f"{RIGHTS}requests_of_one_submitter_at_the_same_time", callers("Callers.turn", "if MAX_REQUESTS", NEVER)),
    *each(f"{RIGHTS}a_caller_who_has_left_is_nobody", callers("Callers._role", "if NOBODY_AT_ALL", NEVER)),
    *each(f"{RIGHTS}the_limits_of_the_spool_hold_over_the_socket", quota("Quota.admit", "if _left_in_hour", NEVER)),
    *each(
        f"{RIGHTS}a_submitter_at_the_limit_submits_and_retries_nothing",
        submitting("Desk._submit", "call _admit", GONE),
        submitting("Desk.retry", "call _admit", GONE),
    ),
    *each(
        f"{RIGHTS}changes_of_a_waiting_job_without_end",
        operations("_record_order", "call forget_early_events", GONE),
    ),
    # ---- reports
    *each(
        f"{RIGHTS}a_report_that_became_a_link",
        report_file("_opened", "argument FILE", "os.O_RDONLY | os.O_NONBLOCK"),
    ),
    *each(
        f"{RIGHTS}a_directory_of_a_report_that_became_a_link",
        report_file("_opened", "argument FOLDER #2", "os.O_PATH | os.O_DIRECTORY"),
    ),
    *each(f"{RIGHTS}a_report_that_the_daemon_did_not_write", report_file("read_report", "operand st_uid", NEVER)),
    *each(f"{RIGHTS}a_report_that_is_a_pipe", report_file("read_report", "operand S_ISREG", NEVER)),
    *each(f"{RIGHTS}a_report_of_another_submitter", report_file("read_report", "if submitter_of", NEVER)),
    *each(f"{RIGHTS}a_report_without_end", report_file("read_report", "if MAX_REPORT", NEVER)),
)
