"""What guards the service from NTFS volumes, and from the confined process that reads them."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

ROOM = "hyper2kvmd/volumes/ntfs"
REACHES = "test_ntfs.py::test_code_in_the_process_reaches_nothing"
SENSELESS = "test_ntfs.py::test_an_answer_that_makes_no_sense"

changes = partial(Cut, f"{ROOM}/changes.py")
child = partial(Cut, f"{ROOM}/child.py")
tool = partial(Cut, f"{ROOM}/tool.py")
volume = partial(Cut, f"{ROOM}/volume.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        cases(
            REACHES,
            "a file of the host",
            "a file to write",
            "the image",
            "a socket",
            "a pair of sockets",
            "another program",
        ),
        tool("running", "keyword sandbox", GONE),
    ),
    *each(cases(REACHES, "a library, once its own is loaded"), child("Server.load", "call setrlimit", GONE)),
    *each(cases(REACHES, "more memory"), tool("running", "keyword address_space", "None")),
    *each(
        "tests/integration/test_ntfs.py::test_a_neighbour_without_a_security_identifier_is_no_model",
        child("MountedVolume._neighbour", "operand security_id", ALWAYS),
    ),
    *each("test_ntfs.py::test_changes_that_leave_the_volume", changes("changes_of", "for _checked", "[]")),
    *each(
        cases("test_ntfs.py::test_changes_that_leave_the_volume", "behind it", "across its end"),
        changes("_checked", "operand size", NEVER),
    ),
    *each(
        cases("test_ntfs.py::test_changes_that_leave_the_volume", "before it", "twice"),
        changes("_checked", "operand at", NEVER),
    ),
    *each(
        cases("test_ntfs.py::test_changes_that_leave_the_volume", "without data"),
        (changes("_checked", "operand used", NEVER), changes("_checked", "if used data #2", NEVER)),
    ),
    *each("test_ntfs.py::test_bytes_that_are_not_the_volumes", tool("Tool._serve", "if READ_LIMIT", NEVER)),
    *each(cases(SENSELESS, "data", "text", "kind"), tool("Tool.answer", "if DATA_LIMIT", NEVER)),
    *each(cases(SENSELESS, "no JSON", "nested", "list"), tool("_parsed", "if dict", NEVER)),
    *each(cases(SENSELESS, "empty", "negative", "large", "word", "error"), tool("_number", "if int", NEVER)),
    *each(cases(SENSELESS, "unknown error"), tool("_reported", "if errorcode", NEVER)),
    *each("test_ntfs.py::test_its_words_are_one_plain_line", tool("_plain", "if isprintable", ALWAYS)),
    *each(
        "test_ntfs.py::test_a_library_that_is_unknown_only_after_it_was_used", tool("Tool.answer", "if is_ready", NEVER)
    ),
    *each(
        "test_ntfs.py::test_its_words_about_the_library_are_one_plain_line", tool("Tool.answer", "call _plain", "$1")
    ),
    *each("test_ntfs.py::test_its_last_words_are_one_plain_line", tool("Tool._died", "call _plain", "$1")),
    *each(cases(SENSELESS, "tag"), volume("NtfsVolume.entry", "if int", NEVER)),
    *each("test_ntfs.py::test_names_that_are_none", volume("NtfsVolume.names", "if NAMES_LIMIT", NEVER)),
    *each("test_ntfs.py::test_more_bytes_than_were_asked_for", volume("NtfsVolume.read", "if wanted", NEVER)),
    *each("test_ntfs.py::test_a_spelling_of_another_path", volume("NtfsVolume.spelling", "if _lengths", NEVER)),
    *each(
        "test_ntfs.py::test_a_process_that_never_stops_asking_is_killed",
        tool("Tool._wait_for", "if _deadline", NEVER),
    ),
    *each(
        ("test_ntfs.py::test_a_process_that_falls_silent", "test_ntfs.py::test_a_process_that_reads_nothing_is_killed"),
        tool("Tool._wait_for", "call _died #2", GONE),
    ),
)
