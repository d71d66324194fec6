"""What guards root: the sudoers line, and the helper behind it."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut, TextCut
from tests.security.guards.guard import Guard, each

HELPER = "hyper2kvmd/helper/helper.py"
helper = partial(Cut, HELPER)
sudoers = partial(TextCut, "sudoers.d/hyper2kvm")
host = partial(Cut, "tests/support/host.py")
INSTALLED = "/usr/libexec/hyper2kvm/helper"
ANOTHER_COMMAND = "test_sudo.py::test_no_other_command_user_group_or_setting"
GRANT = 'ALL=(root:root) NOPASSWD: /usr/libexec/hyper2kvm/helper ""'

# Each of these alone leaves the other one to refuse the same request.
INSIDE = helper("check_stretch", "value RANGE_END", ALWAYS)
INSIDE_FILE = helper("configure_loop", "value st_size", ALWAYS)
BECAME = helper("attach_loop", "value length offset", ALWAYS)
REGULAR = helper("configure_loop", "argument S_ISREG", ALWAYS)
OPEN_FOR_IT = helper("configure_loop", "value O_RDWR", ALWAYS)
SEALED = helper("read_key", "value SEALED", ALWAYS)
NO_SEALS = helper("read_key", "value False", ALWAYS)
KEY_SIZE = helper("read_key", "if CIPHERS", NEVER)
NAMED = helper("parse_table", "argument list range", ALWAYS)
LEG_COUNT = helper("parse_table", "argument len LEGS_MAX", ALWAYS)
LEGS_OF_A_KIND = helper("check_stretch", "argument linear 1", ALWAYS)
VERB = helper("receive", "argument mount probe", ALWAYS)
FIELDS = helper("shaped", "operand set", NEVER)
TYPES = helper("shaped", "argument type", ALWAYS)
WHOLE_SECTORS = helper("check_crypt", "value iv", ALWAYS)
AUTOCLEAR = helper("configure_loop", "mention LO_FLAGS_AUTOCLEAR", "0")
ISOLATED = TextCut(HELPER, "#!/usr/bin/python3 -IS", "#!/usr/bin/python3")
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
        host("installed_helper", "argument 0o755", "0o777"),
    ),
    # ---- who asks, and how it is started
    *each("test_helper.py::test_the_helper_itself_takes_no_argument", helper("main", "argument argv 1", ALWAYS)),
    *each(
        "test_helper.py::test_only_the_right_kind_of_stdin",
        helper("identify", "value SOCK_SEQPACKET", ALWAYS),
    ),
    *each(
        ("test_helper.py::test_no_socket_at_all", "test_helper.py::test_closed_stdin"),
        helper("main", "item OSError", GONE),
    ),
    *each("test_helper.py::test_not_run_by_root", helper("identify", "argument geteuid", ALWAYS)),
    *each("test_helper.py::test_a_socket_made_by_another_user", helper("identify", "value str", ALWAYS)),
    *each("test_helper.py::test_the_helper_imports_nothing_of_ours", ISOLATED),
    *each(
        ("test_helper.py::test_the_environment_is_ignored", "test_helper.py::test_hostile_surroundings"),
        (ISOLATED, SUDO_CLEANS),
    ),
    *each("test_helper.py::test_tiny_limits_end_cleanly", AUTOCLEAR),
    # ---- the request
    *each(
        "test_helper.py::test_malformed_requests",
        helper("receive", "except RecursionError", "KeyError"),
        helper("receive", "if isinstance", ALWAYS),
        (VERB, FIELDS),
        (VERB, FIELDS, TYPES),
        FIELDS,
        helper("unique", "if", NEVER),
        TYPES,
        helper("receive", "argument fullmatch", ALWAYS),
        helper("probe", "value OPTIONS", ALWAYS),
        helper("receive", "value MSG_TRUNC", ALWAYS),
    ),
    *each(
        "test_helper.py::test_too_many_descriptors",
        helper("receive", "value MSG_CTRUNC", ALWAYS),
    ),
    *each("test_helper.py::test_a_probe_takes_no_descriptor", helper("serve", "call require bad-fd", GONE)),
    *each(
        "test_helper.py::test_a_second_request_on_the_same_channel_is_never_answered",
        helper("main", "call sendmsg", "($0($1, $2), $0([json.dumps(serve(channel, caller)[1]).encode()]))"),
    ),
    *each(
        "test_helper.py::test_mounts_that_are_refused",
        helper("serve_mount", "argument OPTIONS", ALWAYS),
        helper("serve_mount", "argument file nbd", ALWAYS),
        TYPES,
        FIELDS,
        LEG_COUNT,
        NAMED,
        (INSIDE, INSIDE_FILE, BECAME),
        (
            helper("check_stretch", "value SECTOR #1", ALWAYS),
            BECAME,
        ),
        helper("parse_table", "value fd offset", ALWAYS),
        helper("serve_mount", "argument len", ALWAYS),
    ),
    *each(
        "test_helper.py::test_stretches_that_are_refused",
        helper("check_stretch", "argument linear mirror", ALWAYS),
        LEGS_OF_A_KIND,
        LEG_COUNT,
        (LEG_COUNT, LEGS_OF_A_KIND),
        FIELDS,
        TYPES,
        helper("check_stretch", "argument length 0", ALWAYS),
        helper("check_stretch", "argument striped 0", ALWAYS),
        helper("parse_table", "value fd offset", ALWAYS),
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
        helper("parse_table", "argument len 0", ALWAYS),
        helper("check_crypt", "value CIPHERS", ALWAYS),
        WHOLE_SECTORS,
    ),
    *each("test_helper.py::test_a_length_that_is_no_whole_encrypted_sectors", WHOLE_SECTORS),
    *each(
        "test_helper.py::test_a_key_is_in_no_answer",
        helper("serve_mount", "call require unsupported #2", '$0($1, $2, f"{keys}")'),
    ),
    # ---- what came with it
    *each(
        "test_helper.py::test_descriptors_that_are_refused",
        NAMED,
        REGULAR,
        OPEN_FOR_IT,
        helper("configure_loop", "mention O_APPEND", "0"),
        (REGULAR, OPEN_FOR_IT),
    ),
    *each("test_helper.py::test_forged_handles", REGULAR, (INSIDE_FILE, BECAME)),
    *each("test_helper.py::test_a_disk_that_the_caller_may_only_read_is_never_written", OPEN_FOR_IT),
    *each(
        "test_helper.py::test_a_read_only_mount_replays_no_journal",
        helper("configure_loop", "value flags read_only", "4"),
    ),
    # ---- what is given away
    *each(
        "test_helper.py::test_what_a_mount_gives_away",
        helper("mount", "value MOUNT_ATTRIBUTES", "0x10 | $1"),
        helper("lock_mount_flags", "return", 'os.open("/proc", os.O_RDONLY)'),
    ),
    *each(
        "test_helper.py::test_flags_of_a_mount_stay",
        helper("serve_mount", "if uid 0", ALWAYS),
    ),
    *each(
        "tests/integration/test_access.py::test_errors_panic_is_overridden",
        helper("OPTIONS", "item errors remount-ro", GONE),
    ),
    *each(
        "test_host_devices.py::test_a_btrfs_that_brings_in_a_device_of_the_host",
        helper("mount", "if lies_on", NEVER),
    ),
    *each(
        "test_helper.py::test_each_request_is_logged_on_one_line",
        helper("plain", "call sub", "$3"),
        helper("main", "call plain dumps", '""'),
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
        helper("receive", "argument REQUEST_SECONDS", "None"),
    ),
    *each(
        "test_deaths.py::test_many_at_once_do_not_meet",
        helper("attach_loop", "value LOOP_CTL_GET_FREE", '"loop0"'),
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
