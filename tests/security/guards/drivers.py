"""What guards the service, and the guests, from driver sources."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

ROOM = "hyper2kvmd/guest/windows/drivers"
source = partial(Cut, f"{ROOM}/source.py")
folder = partial(Cut, f"{ROOM}/folder.py")
iso = partial(Cut, f"{ROOM}/iso.py")
inf = partial(Cut, f"{ROOM}/inf.py")
text = partial(Cut, f"{ROOM}/inf_text.py")
choice = partial(Cut, f"{ROOM}/choice.py")
signature = partial(Cut, f"{ROOM}/signature.py")
pkcs7 = partial(Cut, f"{ROOM}/pkcs7.py")
pe = partial(Cut, f"{ROOM}/pe.py")
PLACE = "test_drivers.py::test_an_inf_that_names_another_place"
DECEIVES = "tests/unit/test_drivers_iso.py::test_an_image_that_deceives"
NO_INF = "tests/unit/test_drivers_inf.py::test_what_is_no_inf"

GUARDS: tuple[Guard, ...] = (
    *each(
        (
            "test_drivers.py::test_an_image_that_the_submitter_may_not_read",
            "test_drivers.py::test_a_link_to_an_image_that_the_submitter_may_not_read",
        ),
        source("_opened", "call open_file", "$0($1)"),
    ),
    *each(
        (
            "test_drivers.py::test_a_link_into_a_closed_folder_reveals_nothing",
            "test_drivers.py::test_an_image_outside_the_allowed_directories",
        ),
        (
            source("real_path", "call open", "os.open(path, os.O_PATH | os.O_NOFOLLOW)"),
            source("DriverSource.open", "call is_folder", "path.is_dir()"),
            source("_opened", "call open_file", "$0($1)"),
        ),
    ),
    *each(
        "test_drivers.py::test_a_file_in_a_folder_that_the_submitter_may_not_read",
        source("_FolderFiles.read", "call open_file", "$0($1)"),
    ),
    *each(
        "test_drivers.py::test_a_folder_that_the_submitter_may_not_list",
        folder("_Walk._names", "call names_in", "tuple(os.listdir(path))"),
    ),
    *each(
        "test_drivers.py::test_a_link_in_a_folder_leads_nowhere",
        folder("is_folder", "call fstat", "os.stat(path)"),
    ),
    *each(
        cases(PLACE, "a file elsewhere in the guest"),
        inf("Inf._files", "if FILE_NAME", NEVER),
    ),
    *each(cases(PLACE, "the service of another driver"), inf("Inf._described", "if SERVICE_NAME", NEVER)),
    *each(cases(PLACE, "a catalogue elsewhere"), inf("parse_inf", "if FILE_NAME", NEVER)),
    *each(cases(PLACE, "a section of many keys"), inf("Inf.installation", "operand SECTION_NAME", NEVER)),
    *each(
        "test_drivers.py::test_a_driver_that_was_changed_after_it_was_signed",
        signature("_embedded", "if digest", NEVER),
    ),
    *each(
        "test_drivers.py::test_a_signature_that_its_certificate_did_not_make",
        pkcs7("_verified", "call _require_signature", GONE),
    ),
    *each(
        "tests/unit/test_drivers_signature.py::test_a_certificate_with_a_changed_name",
        pkcs7("_verified", "call _require_issued", GONE),
    ),
    *each("test_drivers.py::test_a_signature_with_another_content", pkcs7("_verified", "if _message_digest", NEVER)),
    *each("test_drivers.py::test_a_catalogue_of_another_driver", signature("_catalog_signer", "if unlisted", NEVER)),
    *each("test_drivers.py::test_a_file_of_a_driver_that_fills_the_memory", source("_require_size", "if limit", NEVER)),
    *each("test_drivers.py::test_a_package_that_fills_the_memory", choice("_files", "if LARGEST_PACKAGE", NEVER)),
    *each(
        "test_drivers.py::test_more_inf_files_than_can_be_read",
        (choice("read_infs", "if ALL_INFS #1", NEVER), choice("read_infs", "if ALL_INFS #2", NEVER)),
    ),
    *each("test_drivers.py::test_folders_without_end", folder("_Walk.files", "operand DEEPEST", "True")),
    *each(
        "test_drivers.py::test_a_folder_with_more_files_than_can_be_read",
        folder("_Walk._names", "if MOST_NAMES", NEVER),
    ),
    *each(
        cases(DECEIVES, "a directory in itself", "two directories in one place"),
        iso("_IsoReader._directory", "if _seen offset", NEVER),
    ),
    *each(cases(DECEIVES, "a directory of a gigabyte"), iso("_IsoReader._directory", "if ALL_DIRECTORIES", NEVER)),
    *each(cases(DECEIVES, "a directory beyond the end"), iso("_IsoReader._read", "if length", NEVER)),
    *each(cases(DECEIVES, "a file beyond the end"), iso("_IsoReader._add", "if size", NEVER)),
    *each(
        cases(DECEIVES, "a name that leads away", "a name of a control character"),
        iso("_IsoReader._checked", "if isprintable", NEVER),
    ),
    *each("tests/unit/test_drivers_iso.py::test_directories_without_end", iso("_IsoReader.files", "if DEEPEST", NEVER)),
    *each(
        "tests/unit/test_drivers_iso.py::test_more_files_than_any_iso_of_drivers",
        iso("_IsoReader._add", "if MOST_FILES", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_iso.py::test_more_directories_than_any_iso_of_drivers",
        iso("_IsoReader._directory", "if MOST_DIRECTORIES", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_iso.py::test_fields_that_continue_in_too_many_places",
        iso("_IsoReader._system_use", "for MOST_CONTINUATIONS", "range(1 << 20)"),
    ),
    *each(cases(NO_INF, "too large"), text("_decoded", "if LARGEST", NEVER)),
    *each(cases(NO_INF, "too many lines"), text("_lines", "if MOST_LINES", NEVER)),
    *each(cases(NO_INF, "a line without end"), text("_lines", "if LONGEST_LINE", NEVER)),
    *each(cases(NO_INF, "too many sections"), text("read_text", "if MOST_SECTIONS", NEVER)),
    *each(cases(NO_INF, "too many fields"), text("split", "if MOST_FIELDS", NEVER)),
    *each(cases(NO_INF, "a text that grows"), text("InfText.expanded", "if LONGEST_LINE", NEVER)),
    *each(
        "tests/unit/test_drivers_inf.py::test_more_ids_than_any_driver_has", inf("Inf._models", "if MOST_IDS", NEVER)
    ),
    *each(
        "tests/unit/test_drivers_inf.py::test_no_list_is_longer_than_that_of_any_driver",
        inf("Inf._limited", "if most", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_inf.py::test_strings_cannot_make_a_line_much_longer",
        text("InfText.fields", "if LONGEST_FIELDS", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_choice.py::test_only_so_many_inf_files_are_tried_for_a_driver",
        choice("choose_package", "mention MOST_CANDIDATES", "None"),
    ),
    *each(
        "tests/unit/test_drivers_choice.py::test_a_source_without_a_usable_driver",
        choice("_package", "if MOST_DEVICES", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_choice.py::test_a_package_with_more_files_than_any_driver_has",
        choice("_files", "operand MOST_FILES", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_signature.py::test_more_certificates_than_any_signature_has",
        pkcs7("_certificates", "if MOST_CERTIFICATES", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_signature.py::test_more_elements_than_any_catalogue_has",
        Cut(f"{ROOM}/der.py", "DerElement.children", "if MOST_ELEMENTS", NEVER),
    ),
    *each(
        "tests/unit/test_drivers_signature.py::test_a_program_with_sections_without_end",
        pe("_at_address", "if MOST_SECTIONS", NEVER),
    ),
)
