"""What bounds the connections, the log lines and the files of clients and submitters without end."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

LARGE = "test_strangers.py::test_a_request_that_is_too_large"

doors = partial(Cut, "hyper2kvmd/daemon/doors.py")
journal = partial(Cut, "hyper2kvmd/daemon/journal.py")
quota = partial(Cut, "hyper2kvmd/daemon/quota.py")
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
    # ---- files
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
        quota("return min(MAX_IN_A_SCAN, waiting, hourly)", "return min(MAX_IN_A_SCAN, hourly)"),
    ),
    *each(
        "test_strangers.py::test_too_many_files_of_one_submitter_within_an_hour",
        quota("return min(MAX_IN_A_SCAN, waiting, hourly)", "return min(MAX_IN_A_SCAN, waiting)"),
    ),
)
