"""What guards root: the sudoers line, and the helper behind it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, each

HELPER = "hyper2kvmd/helper/helper.py"
helper = partial(Cut, HELPER)
sudoers = partial(Cut, "sudoers.d/hyper2kvm")
host = partial(Cut, "tests/support/host.py")
INSTALLED = "/usr/libexec/hyper2kvm/helper"
ANOTHER_COMMAND = "test_sudo.py::test_no_other_command_user_group_or_setting"
GRANT = 'ALL=(root:root) NOPASSWD: /usr/libexec/hyper2kvm/helper ""'

# Each of these alone leaves the other one to refuse the same request.
INSIDE = helper("inside = offset >= 0 and length > 0 and offset + length < 1 << 62", "inside = True")
INSIDE_FILE = helper("inside = leg.offset + leg.length <= facts.st_size", "inside = True")
BECAME = helper('require(asked, "bad-range", f"{name} became', 'require(True, "bad-range", f"{name} became')
REGULAR = helper("require(stat.S_ISREG(facts.st_mode),", "require(True,")
OPEN_FOR_IT = helper("access == os.O_RDWR or (read_only and access == os.O_RDONLY)", "True")
SEALED = helper("fcntl.fcntl(handle, fcntl.F_GET_SEALS) & SEALED == SEALED", "True")
NO_SEALS = helper("        sealed = False", "        sealed = True")
KEY_SIZE = helper("if len(key) not in CIPHERS[cipher]:", "if False:")
NAMED = helper("named == list(range(len(fds)))", "True")
LEG_COUNT = helper("1 <= len(legs) <= LEGS_MAX,", "True,")
LEGS_OF_A_KIND = helper('count == 1 if kind == "linear" else count > 1,', "True,")
VERB = helper('require(verb in ("probe", "mount"),', "require(True,")
FIELDS = helper("or set(value) != set(fields):", "or False:")
TYPES = helper("type(value[name]) is kind,", "True,")
WHOLE_SECTORS = helper(
    'require(whole, "bad-range", f"{stretch.length}', 'require(True, "bad-range", f"{stretch.length}'
)
AUTOCLEAR = helper("flags = 4 | (1 if read_only else 0)  # LO", "flags = 0 | (1 if read_only else 0)  # LO")
ISOLATED = helper("#!/usr/bin/python3 -IS", "#!/usr/bin/python3")
SUDO_CLEANS = sudoers("env_reset", 'env_reset, env_keep += "PYTHONPATH PYTHONHOME"')

GUARDS: tuple[Guard, ...] = (
    *each("test_sudo.py::test_visudo_accepts_the_file_without_a_word", sudoers("!requiretty", "!requirety")),
    *each("test_sudo.py::test_no_argument_at_all", sudoers('helper ""', "helper")),
    *each(
        (
            ANOTHER_COMMAND,
            "test_sudo.py::test_a_copy_with_the_helpers_name_is_not_the_helper",
            "test_sudo.py::test_a_link_swapped_under_sudo_runs_nothing_else",
        ),
        sudoers(GRANT, "ALL=(ALL:ALL) CWD=* CHROOT=* NOPASSWD: SETENV: ALL"),
    ),
    *each("test_sudo.py::test_nobody_else", sudoers(f"\nhyper2kvm {GRANT}", f"\nALL {GRANT}")),
    *each("test_sudo.py::test_settings_of_the_host_do_not_come_between", sudoers("!requiretty, !use_pty, ", "")),
    *each(
        "test_sudo.py::test_neither_file_can_be_written_or_replaced_by_the_service_user",
        host("HELPER, 0o755", "HELPER, 0o777"),
    ),
    # ---- who asks, and how it is started
    *each("test_helper.py::test_the_helper_itself_takes_no_argument", helper("len(sys.argv) == 1,", "True,")),
    *each(
        "test_helper.py::test_only_the_right_kind_of_stdin",
        helper("channel.family == socket.AF_UNIX and channel.type == socket.SOCK_SEQPACKET", "True"),
    ),
    *each(
        ("test_helper.py::test_no_socket_at_all", "test_helper.py::test_closed_stdin"),
        helper(
            "    except (Refusal, OSError) as error:\n        syslog", "    except Refusal as error:\n        syslog"
        ),
    ),
    *each("test_helper.py::test_not_run_by_root", helper("os.geteuid() == 0,", "True,")),
    *each(
        "test_helper.py::test_a_socket_made_by_another_user", helper("agreed = claimed == str(uid)", "agreed = True")
    ),
    *each("test_helper.py::test_the_helper_imports_nothing_of_ours", ISOLATED),
    *each(
        ("test_helper.py::test_the_environment_is_ignored", "test_helper.py::test_hostile_surroundings"),
        (ISOLATED, SUDO_CLEANS),
    ),
    *each("test_helper.py::test_tiny_limits_end_cleanly", AUTOCLEAR),
    # ---- the request
    *each(
        "test_helper.py::test_malformed_requests",
        helper("except (ValueError, RecursionError):", "except KeyError:"),
        helper('request.get("verb") if isinstance(request, dict) else None', 'request.get("verb")'),
        (VERB, FIELDS),
        (VERB, FIELDS, TYPES),
        FIELDS,
        helper("if len(dict(pairs)) != len(pairs):", "if False:"),
        TYPES,
        helper('bool(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", asked.job)),', "True,"),
        helper("known = isinstance(fstype, str) and fstype in OPTIONS", "known = True"),
        helper("short = not flags & socket.MSG_TRUNC and len(data) <= REQUEST_BYTES", "short = True"),
    ),
    *each(
        "test_helper.py::test_too_many_descriptors",
        helper("arrived = not flags & socket.MSG_CTRUNC and len(fds) <= LEGS_MAX", "arrived = True"),
    ),
    *each("test_helper.py::test_a_probe_takes_no_descriptor", helper('not fds, "bad-fd"', 'True, "bad-fd"')),
    *each(
        "test_helper.py::test_a_second_request_on_the_same_channel_is_never_answered",
        helper(
            "channel.sendmsg([json.dumps(reply).encode()], rights)",
            "channel.sendmsg([json.dumps(reply).encode()], rights)\n"
            "        channel.sendmsg([json.dumps(serve(channel, caller)[1]).encode()])",
        ),
    ),
    *each(
        "test_helper.py::test_mounts_that_are_refused",
        helper('fstype in OPTIONS, "bad-request"', 'True, "bad-request"'),
        helper('transport in ("file", "nbd"),', "True,"),
        TYPES,
        FIELDS,
        LEG_COUNT,
        NAMED,
        (INSIDE, INSIDE_FILE, BECAME),
        (
            helper("offset % SECTOR == 0 and length % SECTOR == 0", "True"),
            BECAME,
        ),
        helper("apart = before.fd != after.fd or before.offset + before.length <= after.offset", "apart = True"),
        helper("len(exports) == sockets,", "True,"),
    ),
    *each(
        "test_helper.py::test_stretches_that_are_refused",
        helper('kind in ("linear", "striped", "mirror"),', "True,"),
        LEGS_OF_A_KIND,
        LEG_COUNT,
        (LEG_COUNT, LEGS_OF_A_KIND),
        FIELDS,
        TYPES,
        helper("length == stretch.legs[0].length,", "True,"),
        helper('fine if kind == "striped" else chunk == 0,', "True,"),
        helper("apart = before.fd != after.fd or before.offset + before.length <= after.offset", "apart = True"),
    ),
    *each(
        "test_helper.py::test_encryptions_that_are_refused",
        (SEALED, NO_SEALS, KEY_SIZE),
        (SEALED, NO_SEALS, KEY_SIZE, NAMED),
        SEALED,
        KEY_SIZE,
        NAMED,
        FIELDS,
        TYPES,
        helper("len(crypts) in (0, len(table)),", "True,"),
        helper("known = crypt.cipher in CIPHERS and crypt.sector in SECTOR_SIZES", "known = True"),
        WHOLE_SECTORS,
    ),
    *each("test_helper.py::test_a_length_that_is_no_whole_encrypted_sectors", WHOLE_SECTORS),
    *each(
        "test_helper.py::test_a_key_is_in_no_answer",
        helper("no device-mapper with the target {target}", "no device-mapper with the target {target} {keys}"),
    ),
    # ---- what came with it
    *each(
        "test_helper.py::test_descriptors_that_are_refused",
        NAMED,
        REGULAR,
        OPEN_FOR_IT,
        helper(" | os.O_APPEND)", ")"),
        (REGULAR, OPEN_FOR_IT),
    ),
    *each("test_helper.py::test_forged_handles", REGULAR, (INSIDE_FILE, BECAME)),
    *each("test_helper.py::test_a_disk_that_the_caller_may_only_read_is_never_written", OPEN_FOR_IT),
    *each(
        "test_helper.py::test_a_read_only_mount_replays_no_journal",
        helper("flags = 4 | (1 if read_only else 0)  # LO", "flags = 4  # LO"),
    ),
    # ---- what is given away
    *each(
        "test_helper.py::test_what_a_mount_gives_away",
        helper("attributes = 0x2 | 0x4 | 0x8 | 0x10", "attributes = 0x10"),
        helper("    return clones[0]", '    return os.open("/proc", os.O_RDONLY)'),
    ),
    *each(
        "test_helper.py::test_flags_of_a_mount_stay",
        helper("mounted if caller.uid == 0 else nail_down(mounted)", "mounted"),
    ),
    *each(
        "tests/integration/test_access.py::test_errors_panic_is_overridden",
        helper('(("errors", "remount-ro"),)', "()"),
    ),
    *each(
        "test_host_devices.py::test_a_btrfs_that_brings_in_a_device_of_the_host",
        helper("if not lies_on(result, fstype, device):", "if False:"),
    ),
    *each(
        "test_helper.py::test_each_request_is_logged_on_one_line",
        helper('lambda match: f"\\\\x{ord(match[0]):02x}", escaped)', "lambda match: match[0], escaped)"),
        helper('f"uid={caller.uid} {asked}: {json.dumps(reply)}"', '""'),
    ),
    # ---- deaths
    *each(
        (
            "test_helper.py::test_probe_and_mount",
            "test_deaths.py::test_killed_before_any_of_its_lines",
            "test_deaths.py::test_a_caller_killed_at_any_moment",
            "test_deaths.py::test_what_the_caller_does_to_sudo_leaves_nothing",
            "test_deaths.py::test_a_caller_that_stops_itself_holds_no_helper[after]",
        ),
        AUTOCLEAR,
    ),
    *each(
        "test_deaths.py::test_a_caller_that_stops_itself_holds_no_helper[before]",
        helper("channel.settimeout(10)", "channel.settimeout(None)"),
    ),
    *each(
        "test_deaths.py::test_many_at_once_do_not_meet",
        helper('name = f"loop{fcntl.ioctl(control, 0x4C82)}"', 'name = "loop0"'),
    ),
)

OTHERS = {
    f"tests/security/{case}": why
    for case, why in (
        ("test_deaths.py::test_the_caller_cannot_signal_the_helper", "the kernel: root takes signals of root"),
        ("test_helper.py::test_malformed_requests[]", "the kernel: a packet of nothing is an end"),
        ("test_helper.py::test_tiny_limits_end_cleanly[limits0]", "sudo: with so few descriptors it fails by itself"),
        ("test_helper.py::test_hostile_surroundings", "sudo: it resets the environment, and opens what is closed"),
        (f"{ANOTHER_COMMAND}[['-u', '#-1', '{INSTALLED}']]", "sudo: there is no such user"),
    )
}
