"""What guards the service from Windows guests, besides the guards of volumes, hives and drivers."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import GONE, NEVER, Cut
from tests.security.guards.guard import Guard, each

ROOM = "hyper2kvmd/guest/windows"
writing = partial(Cut, f"{ROOM}/writing.py")
inspect = partial(Cut, f"{ROOM}/inspect.py")
network = partial(Cut, f"{ROOM}/network.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        "test_windows.py::test_a_process_that_lies_about_what_it_changes",
        writing("write_volume", "call _require_as_expected", GONE),
        writing("_require_as_expected", "if _has_content", NEVER),
    ),
    *each(
        "tests/unit/test_windows_inspect.py::test_texts_of_the_registry_are_safe_to_show",
        inspect("_text", "call one_line", "$1"),
    ),
    *each(
        "tests/unit/test_windows_network.py::test_only_so_many_adapters_are_read",
        network("_connections", "if MOST_ADAPTERS", NEVER),
    ),
    *each(
        "tests/unit/test_windows_network.py::test_what_is_too_long_is_not_kept",
        network("_settings", "operand LARGEST_VALUE", "True"),
    ),
    *each(
        "test_windows.py::test_the_efi_partition_is_written_after_the_volume_of_windows",
        Cut(f"{ROOM}/family.py", "FoundWindows.repair", "call write_volume", GONE),
    ),
)
