"""Every guard that keeps an attack out, and how to take it away: the tests named beside it must fail then.

A text stands in its file exactly once; tests/unit/test_guards.py holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HELPER = "hyper2kvmd/helper/helper.py"
SUDOERS = "sudoers.d/hyper2kvm"


@dataclass(frozen=True)
class Guard:
    """In `file`, `text` guards and `without` does not; `tests` are functions as `module::name`."""

    file: str
    text: str
    without: str
    tests: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(_path(test) for test in self.tests)


def _path(test: str) -> str:
    module, _, name = test.partition("::")
    folder = module if "/" in module else f"security/test_{module}"
    return f"tests/{folder}.py::{name}"


def _table(file: str, *rows: tuple[str, str, str]) -> tuple[Guard, ...]:
    return tuple(Guard(file, text, without, tuple(tests.split())) for text, without, tests in rows)


ACCESS = "integration/test_access"

GUARDS: tuple[Guard, ...] = (
    *_table(
        SUDOERS,
        ('/usr/libexec/hyper2kvm/helper ""', "/usr/libexec/hyper2kvm/helper", "sudo::test_no_argument_at_all"),
        (
            'NOPASSWD: /usr/libexec/hyper2kvm/helper ""',
            "NOPASSWD: ALL",
            "sudo::test_no_other_command_user_group_or_setting",
        ),
        ("\nhyper2kvm ALL", "\nALL ALL", "sudo::test_nobody_else"),
        ("!requiretty, !use_pty, ", "", "sudo::test_settings_of_the_host_do_not_come_between"),
    ),
    *_table(
        HELPER,
        ("#!/usr/bin/python3 -IS", "#!/usr/bin/python3", "helper::test_the_helper_imports_nothing_of_ours"),
        ("len(sys.argv) == 1,", "True,", "helper::test_the_helper_itself_takes_no_argument"),
        (
            "channel.family == socket.AF_UNIX and channel.type == socket.SOCK_SEQPACKET",
            "True",
            "helper::test_only_the_right_kind_of_stdin",
        ),
        ("os.geteuid() == 0,", "True,", "helper::test_not_run_by_root"),
        ("agreed = claimed == str(uid)", "agreed = True", "helper::test_a_socket_made_by_another_user"),
        ("channel.settimeout(10)", "channel.settimeout(None)", "deaths::test_a_caller_that_stops_itself_holds_no_helper"),
        ("not flags & socket.MSG_CTRUNC and len(fds) <= LEGS_MAX", "True", "helper::test_too_many_descriptors"),
        ("not flags & socket.MSG_TRUNC and len(data) <= REQUEST_BYTES", "True", "helper::test_malformed_requests"),
        ("if len(dict(pairs)) != len(pairs):", "if False:", "helper::test_malformed_requests"),
        ("set(value) != set(fields)", "not set(value) >= set(fields)", "helper::test_malformed_requests"),
        ("type(value[name]) is kind,", "True,", "helper::test_malformed_requests"),
        ('re.fullmatch(r"[A-Za-z0-9._-]{1,128}", asked.job)', "True", "helper::test_malformed_requests"),
        ("1 <= len(legs) <= LEGS_MAX,", "True,", "helper::test_mounts_that_are_refused"),
        ("len(crypts) in (0, len(table)),", "True,", "helper::test_encryptions_that_are_refused"),
        ("named == list(range(len(fds))),", "True,", "helper::test_descriptors_that_are_refused"),
        (
            "apart = before.fd != after.fd or before.offset + before.length <= after.offset",
            "apart = True",
            "helper::test_mounts_that_are_refused",
        ),
        ('kind in ("linear", "striped", "mirror"),', "True,", "helper::test_stretches_that_are_refused"),
        ('count == 1 if kind == "linear" else count > 1,', "True,", "helper::test_stretches_that_are_refused"),
        (
            "inside = offset >= 0 and length > 0 and offset + length < 1 << 62",
            "inside = True",
            "helper::test_mounts_that_are_refused",
        ),
        ("offset % SECTOR == 0 and length % SECTOR == 0", "True", "helper::test_mounts_that_are_refused"),
        ("length == stretch.legs[0].length,", "True,", "helper::test_stretches_that_are_refused"),
        ('fine if kind == "striped" else chunk == 0,', "True,", "helper::test_stretches_that_are_refused"),
        (
            "crypt.cipher in CIPHERS and crypt.sector in SECTOR_SIZES",
            "True",
            "helper::test_encryptions_that_are_refused",
        ),
        ('require(whole, "bad-range", f"{stretch', 'require(True, "bad-range", f"{stretch', "helper::test_encryptions_that_are_refused"),
        ("fcntl.fcntl(handle, fcntl.F_GET_SEALS) & SEALED == SEALED", "True", "helper::test_encryptions_that_are_refused"),
        ("if len(key) not in CIPHERS[cipher]:", "if False:", "helper::test_encryptions_that_are_refused"),
        ("require(stat.S_ISREG(facts.st_mode),", "require(True,", "helper::test_descriptors_that_are_refused"),
        (
            "access == os.O_RDWR or (read_only and access == os.O_RDONLY)",
            "True",
            "helper::test_a_disk_that_the_caller_may_only_read_is_never_written",
        ),
        ("flags = 4 | (1 if read_only else 0)  # LO", "flags = 0 | (1 if read_only else 0)  # LO", "helper::test_probe_and_mount"),
        ("len(exports) == sockets,", "True,", "helper::test_mounts_that_are_refused"),
        ('fstype in OPTIONS, "bad-request"', 'True, "bad-request"', "helper::test_mounts_that_are_refused"),
        ('transport in ("file", "nbd"),', "True,", "helper::test_mounts_that_are_refused"),
        ('not fds, "bad-fd"', 'True, "bad-fd"', "helper::test_a_probe_takes_no_descriptor"),
        ("known = isinstance(fstype, str) and fstype in OPTIONS", "known = True", "helper::test_malformed_requests"),
        ("attributes = 0x2 | 0x4 | 0x8 | 0x10", "attributes = 0x10", "helper::test_what_a_mount_gives_away"),
        ("mounted if caller.uid == 0 else nail_down(mounted)", "mounted", "helper::test_flags_of_a_mount_stay"),
        ('(("errors", "remount-ro"),)', "()", f"{ACCESS}::test_errors_panic_is_overridden"),
        ("if mapping is not None:\n            step", "if False:\n            step", "guests::test_a_trap_stays_inside_the_guest"),
        (
            'lambda match: f"\\\\x{ord(match[0]):02x}", escaped)',
            "lambda match: match[0], escaped)",
            "helper::test_each_request_is_logged_on_one_line",
        ),
        ('f"uid={caller.uid} {asked}: {json.dumps(reply)}"', '""', "helper::test_each_request_is_logged_on_one_line"),
    ),
    *_table(
        "hyper2kvmd/confine.py",
        ('        restrict(**policy["landlock"])', "        pass", "images::test_a_confined_tool_has_no_network_no_other_file_and_no_new_privileges"),
        ("        cut_off()", "        pass", "images::test_a_confined_tool_has_no_network_no_other_file_and_no_new_privileges"),
    ),
    *_table(
        "hyper2kvmd/disk/qemu_img.py",
        ("str(path).replace(',', ',,')", "str(path)", "images::test_a_name_is_a_name"),
        (
            "run.run(argv, sandbox=run.Sandbox(read=(source,), write=(target.parent,)), on_output",
            "run.run(argv, on_output",
            "images::test_a_tool_that_opened_it_would_not_reach_the_secret",
        ),
    ),
    *_table(
        "hyper2kvmd/disk/source_file.py",
        ("os.open(path, os.O_RDONLY | os.O_NOFOLLOW |", "os.open(path, os.O_RDONLY |", "images::test_refused_by_name_before_a_tool_runs"),
        ("if not stat.S_ISREG(status.st_mode):", "if False:", "images::test_refused_by_name_before_a_tool_runs"),
        ("        mandate.require(fd, path)", "        pass", "submitter::test_a_folder_swapped_for_a_link_while_it_is_opened"),
    ),
    *_table(
        "hyper2kvmd/disk/vmdk/files.py",
        (' and "/" not in name', "", "images::test_refused_by_name_before_a_tool_runs"),
    ),
    *_table(
        "hyper2kvmd/disk/vmdk/descriptor.py",
        ('if embedded and extent.type != "SPARSE":', "if False:", "images::test_refused_by_name_before_a_tool_runs"),
        (
            "return self.parent_cid != NO_PARENT or self.parent_hint is not None",
            "return False",
            "images::test_refused_by_name_before_a_tool_runs",
        ),
    ),
    *_table(
        "hyper2kvmd/disk/vmdk/grains.py",
        ("if self.directory_bytes > LARGEST_DIRECTORY:", "if False:", "images::test_refused_by_name_before_a_tool_runs"),
        ("max(SECTOR, piece.length // BEST_RATIO)", "SECTOR", "images::test_refused_by_name_before_a_tool_runs"),
    ),
    *_table(
        "hyper2kvmd/disk/foreign/qcow2.py",
        ("    if backing:", "    if False:", "images::test_refused_by_name_before_a_tool_runs"),
        ("features & DATA_FILE or DATA_FILE_NAME in", "DATA_FILE_NAME in ()or() and", "images::test_refused_by_name_before_a_tool_runs"),
    ),
    *_table(
        "hyper2kvmd/disk/sources.py",
        ("if named not in (None, found):", "if False:", "images::test_refused_by_name_before_a_tool_runs"),
    ),
    *_table(
        "hyper2kvmd/disk/mandate.py",
        ("if not self.person.may(READ, handle):", "if False:", "submitter::test_a_disk_that_only_the_service_may_read"),
        ("if not self.person.may(SEARCH, folder):", "if False:", "submitter::test_a_disk_in_a_folder_that_is_closed_to_them"),
        (
            '        require_below(path, opened, self.folders, "source")',
            "        pass",
            "submitter::test_a_folder_swapped_for_a_link_while_it_is_opened",
        ),
    ),
    *_table(
        "hyper2kvmd/person.py",
        ("tuple(_acl(target)) if masked else ()", "()", "submitter::test_rights_are_judged_as_the_kernel_does"),
        (" if masked else ()", "", "submitter::test_rights_are_judged_as_the_kernel_does"),
        ("else NOBODY_AT_ALL", "else 0", "submitter::test_somebody_whom_nobody_knows_has_the_rights_of_others"),
    ),
    *_table(
        "hyper2kvmd/stages/plan.py",
        ("read_keys(migration.luks_keyfile, mandate)", "read_keys(migration.luks_keyfile)", "submitter::test_a_key_that_only_the_service_may_read"),
        (
            '            _require_below(path, order.allowed_source_dirs, "source")',
            "            pass",
            "submitter::test_a_source_outside_of_what_is_allowed",
        ),
        (
            '        _require_below(directory, order.allowed_output_dirs, "output")',
            "        pass",
            "submitter::test_an_output_outside_of_what_is_allowed",
        ),
        ("*([named] if named else [])", "", "submitter::test_an_output_outside_of_what_is_allowed"),
    ),
    *_table(
        "hyper2kvmd/daemon/scheduler.py",
        ("            submitter=job.submitter,\n", "", "submitter::test_an_extent_that_is_linked_to_anothers_disk"),
    ),
    *_table(
        "hyper2kvmd/daemon/spool.py",
        ("sole = not facts.st_mode & stat.S_IWOTH", "sole = True", "submitter::test_a_yaml_that_somebody_else_may_have_written"),
        ("_require(theirs,", "_require(True,", "submitter::test_a_yaml_that_somebody_else_may_have_written"),
        ("_require(facts.st_nlink == 1,", "_require(True,", "integration/daemon/test_spool::test_what_is_no_plain_small_file_of_its_own_is_rejected"),
        ("_require(facts.st_size <= MAX_TEXT,", "_require(True,", "integration/daemon/test_spool::test_what_is_no_plain_small_file_of_its_own_is_rejected"),
        ("        except PermissionError as error:", "        except FileExistsError as error:", "spool_rights::test_a_file_of_another_user_that_may_not_be_read_is_rejected_with_the_remedy"),
    ),
    *_table(
        "hyper2kvmd/yaml_source.py",
        ("if event.tag is not None:", "if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ('elif name.text == "<<" and not name.quoted:', "elif False:", "unit/test_yaml_source::test_refused_with_place"),
        (':= name.text.replace("-", "_")) in entries:', ':= name.text.replace("-", "_")) in ():', "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("if not isinstance(after, yaml.StreamEndEvent):", "if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("if depth > MAX_DEPTH:", "if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("if self._nodes > MAX_NODES:", "if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("    if len(data) > MAX_BYTES:", "    if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("if found := FORBIDDEN.search(text):", "if found := None:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
        ("if found := CONTROL.search(event.value):", "if found := None:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
    ),
    *_table(
        "hyper2kvmd/spec.py",
        ("if not LIBVIRT_URI.fullmatch(asked.libvirt_uri):", "if False:", "yaml::test_refused_soon_in_little_memory_on_plain_lines"),
    ),
    *_table(
        "hyper2kvmd/guest/root.py",
        (
            "RESOLUTION = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS",
            "RESOLUTION = RESOLVE_NO_MAGICLINKS",
            "guests::test_a_trap_stays_inside_the_guest",
        ),
        ("        if not stat.S_ISREG(status.st_mode):", "        if False:", "guests::test_a_trap_stays_inside_the_guest"),
        ("            data = stream.read(limit + 1)", "            data = stream.read(limit)", "guests::test_a_trap_stays_inside_the_guest"),
    ),
    *_table(
        "hyper2kvmd/daemon/journal.py",
        (
            'letter if letter.isprintable() else "\\N{REPLACEMENT CHARACTER}" for',
            "letter for",
            "texts::test_a_guests_words_are_one_line_of_the_log",
        ),
    ),
    *_table(
        "hyper2kvmd/daemon/web.py",
        ("when, escape(what)", "when, what", "texts::test_a_files_name_means_nothing_anywhere"),
        ('"Content-Security-Policy":', '"X-Policy":', "texts::test_a_browser_is_told_to_run_nothing"),
    ),
    *_table(
        "hyper2kvmd/config.py",
        ('default="127.0.0.1:9180"', 'default="0.0.0.0:9180"', "texts::test_the_page_and_the_metrics_listen_here_alone"),
    ),
    *_table(
        "hyper2kvmd/report.py",
        ('html.escape(" ".join(text.split()), quote=False)', '" ".join(text.split())', "unit/test_report::test_a_guest_cannot_speak_in_the_reports_own_voice"),
    ),
)
