"""What guards the service from archives and from the descriptors in them."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, each

tar = partial(Cut, "hyper2kvmd/machines/archives/tar.py")
names = partial(Cut, "hyper2kvmd/machines/archives/names.py")
streams = partial(Cut, "hyper2kvmd/machines/archives/streams.py")
unpacking = partial(Cut, "hyper2kvmd/machines/archives/unpacking.py")
OUTSIDE = "test_archives.py::test_a_name_that_leads_out_of_the_archive"
ROOM = unpacking("Unpacking._require_room", "call require_space", GONE)

GUARDS: tuple[Guard, ...] = (
    *each(
        (OUTSIDE, "test_archives.py::test_a_name_that_leads_out_of_a_zip"), names("vetted", "if startswith ..", NEVER)
    ),
    *each("test_archives.py::test_what_is_no_file", tar("_TarReader._member", "if FILES", NEVER)),
    *each("test_archives.py::test_two_files_of_one_name", names("require_new", "if known", NEVER)),
    *each("test_archives.py::test_files_without_end", names("require_new", "if MAX_FILES", NEVER)),
    *each(
        "test_archives.py::test_a_file_that_reaches_beyond_its_archive",
        (
            streams("Plain.require", "if size", NEVER),
            Cut("hyper2kvmd/disk/files.py", "in_window", "if length", NEVER),
        ),
    ),
    *each(
        "test_archives.py::test_a_member_that_reaches_beyond_an_archive_that_shrank",
        Cut("hyper2kvmd/disk/files.py", "in_window", "if length", NEVER),
    ),
    *each(
        "test_archives.py::test_two_disks_in_the_same_bytes",
        Cut("hyper2kvmd/model/disks.py", "FileIdentity.overlaps", "return first", NEVER),
    ),
    *each(
        "test_archives.py::test_headers_without_end", tar("_TarReader._next", "argument MAX_EXTENSIONS #1", "1 << 30")
    ),
    *each("test_archives.py::test_a_header_of_a_gigabyte", tar("_TarReader._extension", "if MAX_EXTENSION", NEVER)),
    *each(
        "test_archives.py::test_a_small_file_that_becomes_a_large_one",
        streams("Unpacked._fill", "if MOST_RATIO", NEVER),
    ),
    *each(
        "test_archives.py::test_compressed_parts_without_end", streams("Unpacked._next_part", "if MOST_PARTS", NEVER)
    ),
    *each(
        "test_archives.py::test_a_file_with_the_name_of_a_directory",
        unpacking("_not_made", "if IMPOSSIBLE_NAME", NEVER),
    ),
    *each(
        (
            "test_archives.py::test_a_file_for_which_there_is_no_room",
            "test_archives.py::test_a_compressed_disk_for_which_there_is_no_room",
        ),
        ROOM,
    ),
    *each(
        "test_archives.py::test_many_small_files_ask_for_space_together",
        unpacking("Unpacking._require_room", "value SMALL", "0"),
    ),
    *each(
        "test_archives.py::test_another_descriptor_than_the_manifest_lists",
        Cut("hyper2kvmd/machines/packaged.py", "read_packaged", "call require_digest", GONE),
    ),
    *each(
        "test_archives.py::test_other_content_than_the_manifest_lists",
        Cut("hyper2kvmd/machines/packaged.py", "PackagedDisks.stored", "mention opened", "opened[:1]"),
    ),
    *each(
        "test_archives.py::test_the_file_that_the_manifest_lists_takes_the_place_of_another",
        Cut("hyper2kvmd/disk/sources/location.py", "open_again", "if identity", NEVER),
    ),
    *each(
        "test_archives.py::test_a_part_that_shifts_the_next_ones",
        (
            Cut("hyper2kvmd/machines/packaged.py", "_require_sizes", "before truncated", NEVER),
            Cut("hyper2kvmd/machines/packaged.py", "_require_sizes", "before corrupt", NEVER),
        ),
    ),
    *each(
        "test_archives.py::test_a_descriptor_that_names_a_file_of_another_user",
        Cut("hyper2kvmd/disk/sources/location.py", "mandate_for", "if named_by", NEVER),
    ),
    *each(
        "test_archives.py::test_an_archive_that_the_submitter_may_not_read",
        Cut("hyper2kvmd/machines/archives/package.py", "open_package", "call open_file", "$0($1)"),
    ),
    *each(
        "test_archives.py::test_certificates_that_the_submitter_may_not_read",
        Cut("hyper2kvmd/machines/seals.py", "_trusted", "call open_file", "$0($1)"),
    ),
    *each(
        "test_archives.py::test_a_directory_that_the_submitter_may_not_list",
        Cut("hyper2kvmd/host/mandate.py", "Mandate.names_in", "operand READ", ALWAYS),
    ),
)
