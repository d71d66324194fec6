"""Confines its own process, then executes a tool that parses untrusted bytes.

It runs alone (`python -IS confine.py POLICY TOOL ARG...`, standard library only) in a fresh process, so that no
code of ours runs between fork and exec. POLICY is a JSON object:

`parent`: pid of the starter; the tool is killed when the starter dies.
`landlock`: null for no confinement, else {"read": [...], "write": [...], "execute": [...]} with absolute paths;
a directory grants everything below it. All other files are inaccessible.
`limits`: {"address_space": bytes, "file_size": bytes, "cpu": seconds}, each optional.

On x86-64 and 64-bit ARM, a system call filter keeps confined tools from creating sockets of any type; they inherit
those that they serve. Landlock does not cover UDP, nor unix sockets of services for this user, such as libvirt's.

Sources: landlock(7), prctl(2), seccomp(2), linux/landlock.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import stat
import struct
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_REG = 1 << 5, 1 << 8
ALL_IN_ABI_1 = (1 << 13) - 1
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
NET_BIND_AND_CONNECT_TCP = 3
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3
"""ABI 6. A tool must not send signals to its starter or use abstract sockets."""
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

SOCKET_CALLS = {"x86_64": (0xC000003E, 41, 53), "aarch64": (0xC00000B7, 198, 199)}
"""By processor architecture: the kernel's number for its ABI, and the numbers of socket(2) and socketpair(2). A
datagram socket of a pair could be used to send elsewhere."""
IO_URING_SETUP, FOREIGN_CALLS = 425, 0x40000000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000

LIMITS = {
    "address_space": resource.RLIMIT_AS,
    "file_size": resource.RLIMIT_FSIZE,
    "cpu": resource.RLIMIT_CPU,
}

TO_BE_TOLD = 5
"""Seconds."""

libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def landlock_abi() -> int:
    """Version of Landlock in this kernel; 0 if there is none."""
    try:
        return syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            None,
            ctypes.c_size_t(0),
            ctypes.c_uint32(LANDLOCK_CREATE_RULESET_VERSION),
        )
    except OSError:
        return 0


def restrict(read: list[str], write: list[str], execute: list[str]) -> None:
    """Limit this process to the named paths, without TCP and signals outwards, as far as the kernel can."""
    abi = landlock_abi()
    if abi == 0:
        return
    handled = ALL_IN_ABI_1 | (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0)
    handled |= IOCTL_DEV if abi >= 5 else 0
    attributes = struct.pack("QQQ", handled, NET_BIND_AND_CONNECT_TCP, SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    grants = [(path, READ_FILE | READ_DIR) for path in read]
    grants += [(path, READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE) for path in write]
    grants += [(path, EXECUTE | READ_FILE | READ_DIR) for path in execute]
    for path, rights in grants:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):  # noqa: PTH112 - this file runs without pathlib's start-up cost
            rights &= FILE_RIGHTS
            if stat.S_ISCHR(os.fstat(handle).st_mode):
                rights |= IOCTL_DEV  # a device such as /dev/kvm is used by ioctls only
        rule = struct.pack("=Qi", rights & handled, handle)
        syscall(
            SYS_LANDLOCK_ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(LANDLOCK_RULE_PATH_BENEATH),
            rule,
            ctypes.c_uint32(0),
        )
        os.close(handle)
    syscall(SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def cut_off() -> None:
    """Deny this process new sockets, and io_uring, which could create them as well."""
    known = SOCKET_CALLS.get(os.uname().machine)
    if known is None:
        return
    machine, socket, pair = known
    program = (  # code, steps to skip when true, when false, operand
        (LOAD, 0, 0, 4),
        (EQUAL, 0, 6, machine),
        (LOAD, 0, 0, 0),
        (AT_LEAST, 4, 0, FOREIGN_CALLS),
        (EQUAL, 4, 0, IO_URING_SETUP),
        (EQUAL, 2, 0, socket),
        (EQUAL, 1, 0, pair),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL_WITH | errno.EPERM),
        (RETURN, 0, 0, FAIL_WITH | errno.ENOSYS),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filtered = struct.pack("@HP", len(program), ctypes.addressof(code))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filtered, 0, 0):
        raise SystemExit("the kernel refuses a system call filter")


def main(arguments: list[str]) -> None:
    policy = json.loads(arguments[0])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != policy["parent"]:
        raise SystemExit("the starter is gone")
    for name, value in policy.get("limits", {}).items():
        spare = TO_BE_TOLD if name == "cpu" else 0  # at the hard limit it gets SIGKILL, which shows no cause
        resource.setrlimit(LIMITS[name], (value, value + spare))
    if policy.get("landlock") is not None:
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise SystemExit("the kernel refuses no_new_privs")
        restrict(**policy["landlock"])
        cut_off()
    os.execv(arguments[1], arguments[1:])  # noqa: S606 - the whole point of this file


if __name__ == "__main__":
    main(sys.argv[1:])
