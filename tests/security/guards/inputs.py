"""What guards the service: from images, guests, YAML and those who submit it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

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
yaml = partial(Cut, "hyper2kvmd/yaml_source.py")
binding = partial(Cut, "hyper2kvmd/yaml_binding.py")
model = partial(Cut, "hyper2kvmd/model/asked.py")
spec = partial(Cut, "hyper2kvmd/spec.py")
root = partial(Cut, "hyper2kvmd/guest/files/root.py")
journal = partial(Cut, "hyper2kvmd/daemon/journal.py")
web = partial(Cut, "hyper2kvmd/daemon/web.py")

ALLOWED = plan('            _require_below(path, order.bounds.source_dirs, "source")', "            pass")
ALLOWED_AS_OPENED = mandate('        require_below(path, opened, self.folders, "source")', "        pass")
NO_LINK = dropped(
    "os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)\n    except Perm", "os.O_NONBLOCK | os.O_CLOEXEC)\n    except Perm"
)
ANYTHING = dropped("_require(stat.S_ISREG(path.lstat().st_mode),", "_require(True,")
ANYTHING_OPENED = dropped("_require(stat.S_ISREG(facts.st_mode),", "_require(True,")
ALIAS = yaml(
    'self._report(\n                "yaml-refused", f"the alias',
    '(lambda *_: None)(\n                "yaml-refused", f"the alias',
)
ANCHOR = yaml("if event.anchor is not None:", "if False:")
MERGE = yaml('elif name.text == "<<" and not name.quoted:', "elif False:")
ONE_LINE = journal('" / ".join(record.message.splitlines())', "record.message")
PRINTABLE = journal('letter if letter.isprintable() else "\\N{REPLACEMENT CHARACTER}" for', "letter for")

GUARDS: tuple[Guard, ...] = (
    # ---- images
    *each(
        cases(VETTED, "absolute extent", "extent above", "extent below", "extent fat:", "extent json: as QEMU's own"),
        Cut("hyper2kvmd/disk/sources/vmdk/files.py", ' and "/" not in name', ""),
    ),
    *each(cases(VETTED, "extent json:"), descriptor("if EXTENT_LIKE.match(line):", "if False:")),
    *each(cases(VETTED, "device mapping"), descriptor("extent.type not in EXTENT_TYPES or ", "")),
    *each(
        cases(VETTED, "extent is a link", "source is a link"), files("os.O_RDONLY | os.O_NOFOLLOW |", "os.O_RDONLY |")
    ),
    *each(
        cases(VETTED, "extent is a FIFO", "extent is a device"),
        files("if not stat.S_ISREG(status.st_mode):", "if False:"),
    ),
    *each(
        cases(VETTED, "parent"),
        descriptor("return self.parent_cid != NO_PARENT or self.parent_hint is not None", "return False"),
    ),
    *each(
        cases(VETTED, "header with a flat descriptor"),
        descriptor('if embedded and extent.type != "SPARSE":', "if False:"),
    ),
    *each(cases(VETTED, "header of nothing"), descriptor("if sectors == 0:", "if False:")),
    *each(cases(VETTED, "backing file", "backing json:", "backing nbd:"), qcow2("    if backing:", "    if False:")),
    *each(
        cases(VETTED, "data file", "data file by name alone"),
        qcow2("if features & DATA_FILE or DATA_FILE_NAME in _extensions(file, length):", "if False:"),
    ),
    *each(cases(VETTED, "data file by name alone"), qcow2(" or DATA_FILE_NAME in _extensions(file, length):", ":")),
    *each(
        cases(VETTED, "header in a raw disk"),
        Cut("hyper2kvmd/disk/sources/opening.py", "if named not in (None, found):", "if False:"),
    ),
    *each(cases(VETTED, "inflates beyond deflate"), grains("max(SECTOR, piece.length // BEST_RATIO)", "SECTOR")),
    *each(cases(VETTED, "directory without end"), grains("if self.directory_bytes > LARGEST_DIRECTORY:", "if False:")),
    *each(
        "test_images.py::test_a_tool_that_opened_it_would_not_reach_the_secret",
        confine('        restrict(**policy["landlock"])', "        pass"),
    ),
    *each(
        "test_images.py::test_a_disk_swapped_behind_our_back_is_not_what_a_tool_opens",
        Cut("hyper2kvmd/disk/sources/foreign/source.py", "opened=self.file,", ""),
        qemu_img("node(source.opened, source_format)", "node(source.path, source_format)"),
    ),
    *each("test_images.py::test_a_name_is_a_name", qemu_img("str(path).replace(',', ',,')", "str(path)")),
    *each(
        "test_images.py::test_a_confined_tool_has_no_socket_no_other_file_and_no_new_privileges",
        confine('        restrict(**policy["landlock"])', "        pass"),
        confine("        cut_off()", "        pass"),
        confine("(EQUAL, 2, 0, socket)", "(EQUAL, 0, 0, socket)"),
        confine("(EQUAL, 1, 0, pair)", "(EQUAL, 0, 0, pair)"),
        confine("libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)", "False"),
    ),
    *each(
        "test_images.py::test_a_confined_tool_writes_one_file_and_no_further_than_told",
        Cut("hyper2kvmd/host/run.py", ', "file_size": sandbox.file_size', ""),
        confine('        restrict(**policy["landlock"])', "        pass"),
    ),
    *each(
        "test_images.py::test_a_confined_tool_that_never_ends_is_ended",
        Cut("hyper2kvmd/host/run.py", ', "cpu": sandbox.cpu', ""),
    ),
    # ---- those who submit
    *each(
        (
            "test_submitter.py::test_a_disk_that_only_the_service_may_read",
            "test_submitter.py::test_an_extent_that_is_linked_to_anothers_disk",
        ),
        mandate("if not self.person.may(READ, handle):", "if False:"),
        files("        mandate.require(fd, path)", "        pass"),
        Cut("hyper2kvmd/daemon/scheduler.py", "            submitter=job.submitter,\n", ""),
    ),
    *each(
        "test_submitter.py::test_a_disk_in_a_folder_that_is_closed_to_them",
        mandate("if not self.person.may(SEARCH, folder):", "if False:"),
    ),
    *each(
        "test_submitter.py::test_what_lies_in_a_closed_folder_is_not_even_said_to_exist",
        files("    mandate.require_way(path)\n", ""),
    ),
    *each(
        "test_submitter.py::test_the_same_text_of_somebody_else_is_no_duplicate",
        spool("submitter.encode(), vm_name.encode(), data", "vm_name.encode(), data"),
    ),
    *each(
        "test_submitter.py::test_a_key_that_only_the_service_may_read",
        Cut("hyper2kvmd/disk/key_files.py", "open_file(path, mandate)", "open_file(path)"),
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
    *each("test_submitter.py::test_a_folder_swapped_for_a_link_while_it_is_opened", ALLOWED_AS_OPENED),
    *each(
        "test_submitter.py::test_an_output_outside_of_what_is_allowed",
        (
            plan('    require_below(order.output_dir, output_dir, order.bounds.output_dirs, "output")', "    pass"),
            Cut(
                "hyper2kvmd/host/destination.py",
                '    require_below(order.output_dir, order.output_dir, order.bounds.output_dirs, "output")',
                "    pass",
            ),
        ),
    ),
    *each(
        "test_submitter.py::test_a_submission_is_its_peers_own",
        Cut(
            "hyper2kvmd/daemon/control.py",
            "Origin(submitter=_peer(request), uid=_peer_uid(request))",
            'Origin(submitter="root", uid=0)',
        ),
        Cut("hyper2kvmd/daemon/control.py", ", uid=_peer_uid(request))", ")"),
    ),
    *each(
        "test_submitter.py::test_a_name_that_belongs_to_somebody_else_by_now",
        person("else Person.of(order.submitter_uid)", "else Person.of(pwd.getpwnam(order.submitter).pw_uid)"),
    ),
    *each("test_submitter.py::test_a_spool_file_is_its_owners_by_their_uid", spool(" uid=owner.uid,", "")),
    *each(
        cases(NEIGHBOUR, "control.sock"),
        Cut("hyper2kvmd/daemon/control.py", "mask = os.umask(0o117)", "mask = os.umask(0)"),
    ),
    *each(
        cases(NEIGHBOUR, "state/jobs.sqlite3"),
        (
            Cut("hyper2kvmd/daemon/service.py", "UMASK = 0o027", "UMASK = 0o022"),
            Cut("hyper2kvmd/daemon/service.py", "state_dir.mkdir(mode=0o750,", "state_dir.mkdir(mode=0o755,"),
            Cut("hyper2kvmd/jobs/database.py", "os.O_EXCL | os.O_CLOEXEC, 0o600)", "os.O_EXCL | os.O_CLOEXEC, 0o644)"),
        ),
    ),
    *each(cases(NEIGHBOUR, "spool/done"), spool("draft.chmod(mode)", "draft.chmod(0o777)")),
    *each(
        RIGHTS,
        person("acl.entries(target) if masked else ()", "()"),
        person(" if masked else ()", ""),
        person("return facts.st_mode & wanted == wanted", "return True"),
        person("return facts.st_mode & wanted == wanted", "return False"),
    ),
    *each(
        "test_submitter.py::test_somebody_whom_nobody_knows_has_the_rights_of_others",
        person("else str(uid), uid, frozenset()", "else str(uid), 0, frozenset()"),
    ),
    # ---- the spool
    *each(
        "test_submitter.py::test_a_yaml_that_somebody_else_may_have_written",
        dropped("facts.st_mode & stat.S_IWOTH or ", ""),
        dropped("facts.st_mode & stat.S_IWGRP and (", "0 and ("),
        dropped("_require(theirs,", "_require(True,"),
    ),
    *each(
        "test_spool.py::test_what_is_no_plain_small_file_of_its_own_is_rejected",
        (NO_LINK, ANYTHING, ANYTHING_OPENED),
        dropped("_require(facts.st_nlink == 1,", "_require(True,"),
        dropped("_require(facts.st_size <= MAX_TEXT,", "_require(True,"),
        dropped('data.decode("utf-8-sig")', 'data.decode("latin-1")'),
    ),
    *each(
        "test_spool.py::test_a_file_swapped_for_a_link_is_never_followed",
        (NO_LINK, ANYTHING),
    ),
    *each(
        "test_submitter.py::test_a_yaml_that_an_acl_lets_somebody_else_write",
        dropped("acl.entries(handle) or not owner", "not owner"),
    ),
    *each(
        "test_submitter.py::test_a_closed_folder_exchanged_for_an_open_one_while_a_disk_is_opened",
        Cut(
            "hyper2kvmd/host/mandate.py", "            for folder in lineage(parent):", "            for folder in ():"
        ),
    ),
    *each(
        "test_spool_rights.py::test_a_file_of_another_user_that_may_not_be_read_is_rejected_with_the_remedy",
        dropped("    except PermissionError as error:", "    except FileExistsError as error:"),
    ),
    *each(
        "test_spool_rights.py::test_what_may_not_be_moved_is_told_once_and_stops_no_other",
        spool(
            "        except OSError as error:\n            if len(self",
            "        except KeyError as error:\n            if len(self",
        ),
    ),
    *each(
        "test_spool_rights.py::test_a_spool_that_the_user_may_not_write_is_refused",
        spool("if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):", "if False:"),
    ),
    *each(
        "test_spool_rights.py::test_folders_that_are_missing_are_made_as_a_package_makes_them",
        spool("        draft.chmod(mode)\n", ""),
        spool("        os.chown(draft, -1, group)\n", ""),
        spool("        acl.let_group_read_new_files(draft)\n", "        pass\n"),
    ),
    *each(
        "test_spool_rights.py::test_a_folder_that_cannot_be_made_for_submitters_is_missing_still",
        spool("        draft.rmdir()\n", ""),
        spool("        os.chown(draft, -1, group)\n", ""),
    ),
    # ---- YAML
    *each(cases(TEXT, "billion laughs", "an alias of itself"), (ALIAS, ANCHOR)),
    *each(cases(TEXT, "merge keys"), (ALIAS, ANCHOR, MERGE)),
    *each(cases(TEXT, "a constructor", "a tag that types"), yaml("if event.tag is not None:", "if False:")),
    *each(
        cases(TEXT, "a key given twice", "the same key, spelled twice"),
        yaml(':= name.text.replace("-", "_")) in entries:', ':= name.text.replace("-", "_")) in ():'),
    ),
    *each(cases(TEXT, "a second document"), yaml("if not isinstance(after, yaml.StreamEndEvent):", "if False:")),
    *each(cases(TEXT, "a million brackets", "nested mappings"), yaml("if depth > MAX_DEPTH:", "if False:")),
    *each(cases(TEXT, "many keys"), yaml("if self._nodes > MAX_NODES:", "if False:")),
    *each(cases(TEXT, "a huge text"), yaml("    if len(data) > MAX_BYTES:", "    if False:")),
    *each(cases(TEXT, "no UTF-8"), yaml('data.decode("utf-8")', 'data.decode("utf-8", "replace")')),
    *each(
        cases(TEXT, "characters that turn text around", "a line break of its own kind"),
        yaml("if found := FORBIDDEN.search(text):", "if found := None:"),
    ),
    *each(cases(TEXT, "control characters"), yaml("if found := CONTROL.search(event.value):", "if found := None:")),
    *each(cases(TEXT, "a huge number", "a number that is a time"), binding("-?(0|[1-9][0-9]{0,17})", ".*")),
    *each(
        cases(TEXT, "a name that leads out", "a name that is an option"),
        model('vm_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")', "vm_name: str"),
    ),
    *each(
        cases(TEXT, "an output that leads out"),
        model(', pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"', ""),
    ),
    *each(
        cases(TEXT, *AMBIGUOUS),
        spec("    if asked.libvirt_import and AMBIGUOUS_NAME.fullmatch(asked.vm_name):", "    if False:"),
    ),
    *each(
        cases(TEXT, "a name that virsh takes for a UUID, with hyphens elsewhere"),
        spec("([0-9A-Fa-f]-*){32}", "[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}"),
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
        spec("if not LIBVIRT_URI.fullmatch(asked.libvirt_uri):", "if False:"),
    ),
    # ---- guests
    *each(
        (TRAP, "test_guests.py::test_a_folder_swapped_for_a_link_while_it_is_used"),
        root("RESOLUTION = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS", "RESOLUTION = RESOLVE_NO_MAGICLINKS"),
    ),
    *each(cases(TRAP, "links in a circle"), root("if stat.S_ISLNK(status.st_mode):", "if False:")),
    *each(
        cases(TRAP, "a FIFO", "a device", "a folder"),
        root("        if not stat.S_ISREG(status.st_mode):", "        if False:"),
    ),
    *each(
        cases(TRAP, "a file without end"),
        root("            data = stream.read(limit + 1)", "            data = stream.read(limit)"),
    ),
    *each(cases(TRAP, "two names"), root("if self.labelled or not self.replaces:", "if False:")),
    *each(cases(TRAP, "setuid"), root("_set_mode(handle, stat.S_IMODE(status.st_mode))", "_set_mode(handle, 0o644)")),
    *each(
        cases(TRAP, "etc is a link to /", "two names"),
        Cut("hyper2kvmd/helper/helper.py", "if mapping is not None:\n            step", "if False:\n            step"),
    ),
    # ---- words
    *each(cases(LOGGED, "a terminal's escape", "text turned around", "a NUL"), PRINTABLE),
    *each(
        cases(LOGGED, "a line break", "a carriage return", "a line separator", "a journal priority"),
        (ONE_LINE, PRINTABLE),
    ),
    *each("test_texts.py::test_a_files_name_means_nothing_anywhere", web("when, escape(what)", "when, what")),
    *each("test_texts.py::test_a_browser_is_told_to_run_nothing", web('"Content-Security-Policy":', '"X-Policy":')),
    *each(
        "test_texts.py::test_the_page_and_the_metrics_listen_here_alone",
        Cut("hyper2kvmd/config.py", 'default="127.0.0.1:9180"', 'default="0.0.0.0:9180"'),
    ),
    *each(
        "tests/unit/test_report.py::test_a_guest_cannot_speak_in_the_reports_own_voice",
        Cut("hyper2kvmd/report.py", 'html.escape(" ".join(text.split()), quote=False)', '" ".join(text.split())'),
    ),
)

CLIMBS = "the kernel: `..` of a detached mount's root is that root"
OTHERS = {
    f"tests/security/{VETTED}[extent nbd:]": "nothing here knows a protocol: a name is a file's",
    f"tests/security/{TEXT}[a NUL]": "PyYAML refuses it as well",
    f"tests/security/{TRAP}[a link that climbs]": CLIMBS,
    f"tests/security/{TRAP}[a folder that climbs]": CLIMBS,
}
