"""What bounds the connections, the log lines and the files of clients and submitters without end."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

LARGE = "test_strangers.py::test_a_request_that_is_too_large"

control = partial(Cut, "hyper2kvmd/daemon/control.py")
doors = partial(Cut, "hyper2kvmd/daemon/doors.py")
incoming = partial(Cut, "hyper2kvmd/daemon/incoming.py")
journal = partial(Cut, "hyper2kvmd/daemon/journal.py")
quota = partial(Cut, "hyper2kvmd/daemon/quota.py")
spec = partial(Cut, "hyper2kvmd/spec.py")
spool = partial(Cut, "hyper2kvmd/daemon/spool.py")
store = partial(Cut, "hyper2kvmd/jobs/store.py")
submissions = partial(Cut, "hyper2kvmd/jobs/submissions.py")
web = partial(Cut, "hyper2kvmd/daemon/web.py")

GUARDS: tuple[Guard, ...] = (
    # ---- connections
    *each(
        "test_strangers.py::test_more_connections_than_descriptors",
        doors("return len(self._connections) >= MAX_CONNECTIONS", "return False"),
    ),
    *each(
        "test_strangers.py::test_no_descriptor_for_a_connection",
        doors("except OSError as error:  # no descriptor", "except ZeroDivisionError as error:  # no descriptor"),
    ),
    *each(
        "test_strangers.py::test_a_request_that_never_comes",
        (
            doors("if self.busy or self.reading or self._transport is None:", "if True:"),
            doors("keepalive_timeout=REQUEST_SECONDS", "keepalive_timeout=3600"),
        ),
    ),
    *each(
        "test_strangers.py::test_a_body_that_never_comes",
        doors("asyncio.wait_for(request.read(), BODY_SECONDS)", "request.read()"),
    ),
    *each(
        "test_strangers.py::test_a_response_that_is_never_read",
        doors("(RESPONSE_SECONDS if unread else REQUEST_SECONDS)", "(3600 if unread else REQUEST_SECONDS)"),
        doors("self._transport.abort()", "self._transport.close()"),
    ),
    *each(cases(LARGE, "line"), doors("            max_line_size=MAX_FIELD_BYTES,\n", "")),
    *each(cases(LARGE, "field"), doors("            max_field_size=MAX_FIELD_BYTES,\n", "")),
    *each(cases(LARGE, "fields without end"), doors("            max_headers=MAX_FIELDS,\n", "")),
    *each(cases(LARGE, "body"), web("client_max_size=MAX_BODY_BYTES", "client_max_size=1 << 20")),
    *each(
        "test_strangers.py::test_a_request_in_progress_is_not_interrupted",
        doors("if not one.busy and one.opened", "if one.opened"),
    ),
    *each(
        "test_strangers.py::test_a_client_that_has_just_come_is_not_turned_out", doors(" and one.opened <= grown", "")
    ),
    *each("test_strangers.py::test_clients_that_never_pause", doors("        if self._full:\n", "        if False:\n")),
    *each(
        "test_strangers.py::test_clients_that_ask_and_leave",
        doors("if connection.lost and not connection.busy:", "if connection.lost:"),
    ),
    # ---- the log and the database
    *each(
        "test_strangers.py::test_bad_requests_in_the_log",
        journal("return self._count <= MAX_MESSAGES", "return True"),
        journal("        record.exc_info = None\n", ""),
    ),
    *each(
        "test_strangers.py::test_page_requests_without_end",
        web("if self._task is None or (self._task.done() and now - self._begun >= SHARE_SECONDS):", "if True:"),
    ),
    *each(
        "test_strangers.py::test_a_list_of_jobs_that_are_all_as_large_as_can_be",
        control("min(MAX_LISTED, max(1, ", "min(100_000, max(1, "),
        control("await asyncio.to_thread(dump)", "dump()"),
    ),
    # ---- files
    *each(
        "test_strangers.py::test_many_copies_of_one_file",
        spool(
            "for candidate in (name, f",
            'for candidate in (name, *(f"{path.stem}.{count}{path.suffix}" for count in range(1000)), f',
        ),
    ),
    *each(
        "test_strangers.py::test_a_file_with_thousands_of_errors",
        spec("if len(problems) <= MAX_PROBLEMS + 1:", "if True:"),
    ),
    *each(
        (
            "test_strangers.py::test_one_file_beside_five_hundred",
            "test_strangers.py::test_a_file_that_comes_after_five_hundred",
        ),
        quota("queues[files[file].uid].append(file)", "queues[0].append(file)"),
    ),
    *each(
        "test_strangers.py::test_a_file_that_comes_after_five_hundred",
        quota("MAX_IN_A_SCAN = 100", "MAX_IN_A_SCAN = 1000"),
    ),
    *each(
        "test_strangers.py::test_files_of_one_submitter_in_their_order",
        quota("(files[file].mtime_ns, name_of(file))", "name_of(file)"),
        quota("(files[file].mtime_ns, name_of(file))", "files[file].mtime_ns"),
    ),
    *each(
        "test_strangers.py::test_too_many_jobs_of_one_submitter_wait",
        quota("return min(waiting, hourly)", "return hourly"),
    ),
    *each(
        "test_strangers.py::test_too_many_files_of_one_submitter_within_an_hour",
        quota("return min(waiting, hourly)", "return waiting"),
    ),
    *each(
        ("test_strangers.py::test_rejected_files_without_end", "test_strangers.py::test_failed_jobs_without_end"),
        spool("            self._forget_surplus(submitter, state)\n", "            pass\n"),
        spool("self._store.forget_jobs([job_id for job_id, _ in surplus])", "pass"),
        spool("                path.unlink(missing_ok=True)\n", ""),
    ),
    *each(
        "test_strangers.py::test_rejected_files_without_end",
        spool('                path.with_name(f"{path.name}.reason.json").unlink(missing_ok=True)\n', ""),
        store("theirs = jobs.c.submitter == submitter, ", "theirs = "),
    ),
    *each(
        cases("test_strangers.py::test_rejected_files_without_end", "duplicates"),
        submissions('if connection.execute(last).scalar() != "duplicate":', "if True:"),
    ),
    *each(
        "test_strangers.py::test_more_files_than_a_scan_reads",
        incoming("itertools.islice(listing, MAX_READ)", "listing"),
        incoming("            self._listing = listing\n", "            pass\n"),
        incoming("if numbers[look.uid] >= MAX_WATCHED:", "if False:"),
        incoming("for uid in full - self._crowded:", "for uid in full:"),
    ),
    *each("test_strangers.py::test_a_directory_is_left_where_it_is", incoming(" and not stat.S_ISDIR(look.mode)", "")),
    *each(
        "test_strangers.py::test_scans_in_quick_succession_take_no_file_before_its_time",
        incoming(" and now - since >= SETTLED_SECONDS", ""),
    ),
    *each(
        "test_strangers.py::test_what_is_left_is_taken_at_once_when_it_may_be",
        quota("not allowed and self._later[uid] > 0", "not allowed"),
        spool("return self._quota.more and claimed > 0", "return self._quota.more"),
    ),
)
