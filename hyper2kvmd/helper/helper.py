#!/usr/bin/python3 -IS
"""The root helper: mounts byte ranges of open files as a file system, for its caller.

It receives one request on stdin (a unix SOCK_SEQPACKET socket: JSON, plus file descriptors), sends one reply (JSON,
plus the mount's descriptor), and ends. It is started by sudo, or by systemd for each connection to a socket of root.
It opens nothing that a caller names, reads no byte of an image, takes no argument, and reads no environment but
SUDO_UID.

Everything that it creates exists only while a descriptor is open: its own, later the caller's. So the death of the
process that holds it, at any instant, removes it. In two short windows the kernel keeps a name: NBD before its close
flag, device-mapper before its removal is queued. The next helper removes such leftovers by their identifier.

Standard library only, no other module of the project: this file is read and installed on its own.

Requests, every field required, every number in bytes:
  {"verb": "probe", "job": text, "fstypes": [name...]}
  {"verb": "mount", "job": text, "transport": "file" | "nbd", "fstype": name, "read_only": bool,
   "table": [{"kind": "linear" | "striped" | "mirror", "chunk": n, "legs": [{"fd": index, "offset": n, "length": n}...]}
             ...], "crypt": [{"key": index, "cipher": name, "sector": n, "iv": sectors}...],
   "nbd": [{"size": n, "flags": int}...]}
The stretches of `table` are joined in order. `crypt` is empty, or has one entry for the decryption of each stretch; the
key is in a sealed memfd. `nbd` is empty for transport "file", else it has one entry for each descriptor that legs name:
a unix stream socket after NBD negotiation, which carries one whole leg. Descriptors of keys come after the others.
Replies: {"ok": true, ...} or {"error": code, "message": text}.

Sources: loop(4), fsopen(2), mount_setattr(2), linux/{loop,nbd-netlink,dm-ioctl,genetlink}.h, the kernel's own
documentation of the device-mapper targets.
"""

import array
import ctypes
import errno
import fcntl
import itertools
import json
import os
import pwd
import re
import resource
import signal
import socket
import stat
import struct
import sys
import syslog
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn, TypeVar, get_origin

SERVICE_USER = "hyper2kvm"
REQUEST_BYTES = 16 * 1024
LEGS_MAX = 64
SECTOR = 512
RANGE_END = 1 << 62
"""No range may reach this byte, so that sums of offsets and lengths fit the kernel's signed 64 bits (loff_t)."""
CHUNK_MIN = 4096
"""Bytes. A chunk of a striped target is no smaller than a page (the kernel's documentation of dm-stripe)."""
TIME_LIMIT = 120
"""Seconds for everything; then the reply is an error, or the socket closes."""
CLEANUP_SECONDS = 10
"""More seconds after that, for the reply; then the process is killed."""
REQUEST_SECONDS = 10
NETLINK_SECONDS = 20
NBD_TIMEOUT = 30
"""Seconds. Without it, a frozen server blocks the holder of the mount even after that server was killed."""
LOOP_ATTEMPTS = 32
"""Free loop devices that may be lost to other processes."""
LINE_CHARACTERS = 900
"""Of a log line, which syslog limits to 1024 bytes with its header (RFC 3164, section 4.1)."""
NO_ID = 0xFFFFFFFF
"""(uid_t) -1, which is no user, and which setresuid(2) reads as "unchanged"."""
REFUSED, CALLER_GONE = 2, 1
"""Exit statuses besides 0."""

# Mount options of each file system besides nosuid,nodev,noexec,noatime: never panic because of a guest's disk, never
# resume a guest's own maintenance.
OPTIONS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "ext4": (("errors", "remount-ro"),),
    "xfs": (("nouuid", None),),
    "btrfs": (("skip_balance", None),),
}
NEEDS_REPLAY = {"ext4": errno.EROFS, "xfs": errno.EROFS, "btrfs": errno.EIO}
"""Error of a read-only mount when the journal has to be replayed first: replay writes, and the device is read-only.
Sources: ext4_load_journal, xfs_dev_is_read_only, btrfs_replay_log."""
DEVICE_FAULTS = (errno.EIO, errno.ENXIO, errno.ENOMEM)
"""Errors of a mount that are no statement about the file system."""
CIPHERS = {"aes-xts-plain64": (32, 64), "aes-cbc-essiv:sha256": (16, 32)}
"""Supported ciphers, with their key sizes in bytes."""
TARGETS = ("linear", "striped", "mirror", "crypt")
KEY_MAX = max(max(sizes) for sizes in CIPHERS.values())
SECTOR_SIZES = (512, 1024, 2048, 4096)
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Refusal(Exception):
    """A refused request: a stable code, and one line with the object and the fact."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def require(fine: bool, code: str, message: str) -> None:
    if not fine:
        raise Refusal(code, message)


class Caller(NamedTuple):
    uid: int
    gid: int


# A request has exactly these fields, of exactly these types.


class Probe(NamedTuple):
    verb: str
    job: str
    fstypes: list[Any]


class Mount(NamedTuple):
    verb: str
    job: str
    transport: str
    fstype: str
    read_only: bool
    table: list[Any]
    crypt: list[Any]
    nbd: list[Any]


class Stretch(NamedTuple):
    kind: str
    chunk: int
    legs: list[Any]

    @property
    def length(self) -> int:
        return int(self.legs[0].length) * (len(self.legs) if self.kind == "striped" else 1)


class Leg(NamedTuple):
    fd: int
    offset: int
    length: int


class Crypt(NamedTuple):
    key: int
    cipher: str
    sector: int
    iv: int


class Export(NamedTuple):
    size: int
    flags: int


Form = TypeVar("Form", Probe, Mount, Stretch, Leg, Crypt, Export)


class Device(NamedTuple):
    """A block device that lives as long as `handle` is open."""

    name: str
    handle: int


# ---------------------------------------------------------------- kernel calls

# asm-generic/unistd.h: the same numbers on every architecture except alpha
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# linux/sched.h
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
# linux/capability.h
CAPABILITY_VERSION_3 = 0x20080522
CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN = 6, 7, 21
STANDARD_STREAMS = (0, 1, 2)
DESCRIPTORS_END = 1 << 16
"""More than this program ever has."""


def syscall(number: int, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def open_device(path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_CLOEXEC)
    if not stat.S_ISBLK(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refusal("device-failed", f"{path} is not a block device")
    return handle


def sysfs(path: str) -> str:
    with open(f"/sys/block/{path}") as file:
        return file.read().strip()


def die_with(parent: int) -> None:
    """In a child: end when `parent` ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A child process that does `work`; it ends with the block or with this process."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            work()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        with suppress(PermissionError):  # one that runs as the caller cannot be signalled; it ends by itself
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def load_module(name: str) -> None:
    nothing = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in STANDARD_STREAMS]
    try:
        pid = os.posix_spawn("/sbin/modprobe", ["modprobe", "-q", name], {}, file_actions=nothing)
    except OSError:
        return  # no modprobe here: the next check of the kernel shows the result
    os.waitpid(pid, 0)


def keep_only_needed_capabilities() -> None:
    """Drop every capability but SETGID, SETUID and SYS_ADMIN, for this process and any program that it starts."""
    kept = sum(1 << number for number in (CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN))
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low = struct.pack("=III", kept, kept, 0)  # effective, permitted, inheritable: capabilities 0 to 31
    high = struct.pack("=III", 0, 0, 0)  # 32 to 63
    if libc.capset(header, low + high):
        raise Refusal("not-root", "the helper does not have the capabilities that it needs")
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


# ---------------------------------------------------------------- the caller and its request

UCRED = struct.Struct("=iII")
"""struct ucred (unix(7)): pid, uid, gid."""


def identify(channel: socket.socket) -> Caller:
    """The caller as identified by the kernel.

    With sudo, which has admitted the caller, SUDO_UID must be the same uid; no caller can keep sudo from setting it. At
    a socket of systemd nothing has checked the caller before: only the service user and root are admitted.
    """
    packets = channel.family == socket.AF_UNIX and channel.type == socket.SOCK_SEQPACKET
    require(packets, "bad-channel", "stdin is not a unix SOCK_SEQPACKET socket")
    require(os.geteuid() == 0, "not-root", "the helper does not run as root")
    _, uid, gid = UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    claimed = os.environ.get("SUDO_UID")
    if claimed is None:
        require(uid in served(), "bad-caller", f"uid {uid} is not the user {SERVICE_USER}")
    else:
        agreed = claimed == str(uid)
        require(agreed, "bad-caller", f"the socket was made by uid {uid}, but sudo was run by uid {claimed!a}")
    require(NO_ID not in (uid, gid), "bad-caller", "the caller has no ids here")
    return Caller(uid, gid)


def served() -> tuple[int, ...]:
    try:
        return 0, pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return (0,)


def receive(channel: socket.socket) -> tuple[Probe | Mount, list[int]]:
    channel.settimeout(REQUEST_SECONDS)
    space = socket.CMSG_SPACE((LEGS_MAX + 1) * array.array("i").itemsize)
    try:
        data, extras, flags, _ = channel.recvmsg(REQUEST_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        raise Refusal("bad-request", "no request came") from None
    fds = array.array("i")
    for level, kind, payload in extras:
        rights = (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        require(rights, "bad-request", "the request carries something other than file descriptors")
        fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    arrived = not flags & socket.MSG_CTRUNC and len(fds) <= LEGS_MAX
    require(arrived, "bad-request", "the file descriptors did not all arrive")
    short = not flags & socket.MSG_TRUNC and len(data) <= REQUEST_BYTES
    require(short, "bad-request", f"the request is longer than {REQUEST_BYTES} bytes")
    try:
        request = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Refusal("bad-request", "the request is not JSON") from None
    verb = request.get("verb") if isinstance(request, dict) else None
    require(verb in ("probe", "mount"), "bad-request", "the request has no verb that is known here")
    asked: Probe | Mount = shaped(request, Probe) if verb == "probe" else shaped(request, Mount)
    require(bool(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", asked.job)), "bad-request", "the job is not a plain name")
    return asked, list(fds)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field is given twice")
    return dict(pairs)


def shaped(value: object, form: type[Form]) -> Form:
    """`value` as an object of exactly the form's fields; a bool is not an int here."""
    fields, what = form.__annotations__, f"a {form.__name__.lower()}"
    if not isinstance(value, dict) or set(value) != set(fields):
        raise Refusal("bad-request", f"{what} must have exactly the fields {', '.join(sorted(fields))}")
    for name, annotation in fields.items():
        kind = get_origin(annotation) or annotation
        require(type(value[name]) is kind, "bad-request", f"{what}: {name} is not of type {kind.__name__}")
    return form(**value)


def parse_table(request: Mount, fds: list[int]) -> tuple[list[Stretch], list[Crypt]]:
    """The stretches and their decryption; no two legs share a byte, and every descriptor is used."""
    table = [shaped(entry, Stretch) for entry in request.table]
    table = [stretch._replace(legs=[shaped(leg, Leg) for leg in stretch.legs]) for stretch in table]
    crypts = [shaped(entry, Crypt) for entry in request.crypt]
    legs = sorted(leg for stretch in table for leg in stretch.legs)
    require(1 <= len(legs) <= LEGS_MAX, "bad-request", f"there must be 1 to {LEGS_MAX} legs")
    require(len(crypts) in (0, len(table)), "bad-request", "there must be one encryption for each stretch, or none")
    for stretch in table:
        check_stretch(stretch)
    for crypt, stretch in zip(crypts, table):  # noqa: B905 - none, or one for each
        check_crypt(crypt, stretch)
    named = [*sorted({leg.fd for leg in legs}), *sorted({crypt.key for crypt in crypts})]
    require(
        named == list(range(len(fds))), "bad-fd", f"{len(fds)} descriptors came, which are not those that are named"
    )
    for before, after in itertools.pairwise(legs):
        apart = before.fd != after.fd or before.offset + before.length <= after.offset
        require(apart, "bad-range", f"two legs share the bytes at {after.offset}")
    return table, crypts


def check_stretch(stretch: Stretch) -> None:
    """Require legs of whole sectors below 2**62 bytes, with a number, length and chunk size that fit their kind."""
    kind, chunk, count = stretch.kind, stretch.chunk, len(stretch.legs)
    require(
        kind in ("linear", "striped", "mirror"), "bad-request", "a stretch is neither linear nor striped nor mirror"
    )
    require(
        count == 1 if kind == "linear" else count > 1, "bad-request", f"a stretch cannot be {kind} with {count} legs"
    )
    for _, offset, length in stretch.legs:
        inside = offset >= 0 and length > 0 and offset + length < RANGE_END
        require(inside, "bad-range", f"{length} bytes at {offset} are no range")
        whole = offset % SECTOR == 0 and length % SECTOR == 0
        require(whole, "bad-range", f"{length} bytes at {offset} are not whole sectors")
        require(length == stretch.legs[0].length, "bad-range", "the legs of a stretch are of different lengths")
    fine = chunk >= CHUNK_MIN and chunk % SECTOR == 0 and stretch.legs[0].length % chunk == 0
    require(
        fine if kind == "striped" else chunk == 0, "bad-range", f"a stretch cannot be {kind} with {chunk} bytes a chunk"
    )


def check_crypt(crypt: Crypt, stretch: Stretch) -> None:
    known = crypt.cipher in CIPHERS and crypt.sector in SECTOR_SIZES
    require(known, "bad-request", "an encryption is not one that is known here")
    whole = 0 <= crypt.iv < RANGE_END and crypt.iv * SECTOR % crypt.sector == 0 and stretch.length % crypt.sector == 0
    require(whole, "bad-range", f"{stretch.length} bytes from sector {crypt.iv} on are not whole encrypted sectors")


def read_key(handle: int, cipher: str) -> str:
    """A volume key in hexadecimal, from a sealed memfd: it cannot change, and reading it cannot block."""
    try:
        sealed = fcntl.fcntl(handle, fcntl.F_GET_SEALS) & SEALED == SEALED
    except OSError:
        sealed = False
    key = os.pread(handle, KEY_MAX + 1, 0) if sealed else b""
    if len(key) not in CIPHERS[cipher]:
        raise Refusal("bad-fd", "a descriptor is not a sealed memfd with a key in it")
    return key.hex()


# ---------------------------------------------------------------- loop devices

# linux/loop.h
LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
LOOP_INFO64_BYTES = 232
LO_OFFSET_AT, LO_FLAGS_AT = 24, 52
"""Offsets in struct loop_info64; lo_sizelimit follows lo_offset."""
LOOP_CONFIG_RESERVED_BYTES = 64
"""At the end of struct loop_config, which is: file descriptor, block size, struct loop_info64, these."""


def as_caller(caller: Caller, work: Callable[[], None]) -> None:
    """Do `work` in a child that has the caller's credentials and nothing else.

    A FUSE file can be used only by the user who mounted it, and the caller gets no rights beyond its own.
    """
    parent = os.getpid()
    source, sink = os.pipe()

    def step() -> None:
        answer = {"error": "device-failed", "message": "the unprivileged step did not finish"}
        try:
            os.setgroups([])
            os.setresgid(caller.gid, caller.gid, caller.gid)
            os.setresuid(caller.uid, caller.uid, caller.uid)
            die_with(parent)  # again: the kernel clears it when credentials change
            work()
            answer = {}
        except Refusal as refusal:
            answer = {"error": refusal.code, "message": refusal.message}
        except OSError as error:
            answer["message"] = f"the loop device cannot be set up: {error.strerror}"
        finally:
            os.write(sink, json.dumps(answer).encode())

    with child(step):
        os.close(sink)
        with open(source, "rb") as pipe:
            data = pipe.read()
    require(bool(data), "device-failed", "the unprivileged step was killed")
    answer = json.loads(data)
    if answer:
        raise Refusal(answer["error"], answer["message"])


def configure_loop(handle: int, backing: int, leg: Leg, read_only: bool) -> None:
    """Runs as the caller: check the file as the caller sees it, then bind the range to the open loop device."""
    facts = os.fstat(backing)
    access = fcntl.fcntl(backing, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH | os.O_APPEND)
    require(stat.S_ISREG(facts.st_mode), "bad-fd", "a descriptor is not a regular file")
    fitting = access == os.O_RDWR or (read_only and access == os.O_RDONLY)
    require(fitting, "bad-fd", "a descriptor is not open for what was asked")
    inside = leg.offset + leg.length <= facts.st_size
    require(inside, "bad-range", f"{leg.length} bytes at {leg.offset} end behind {facts.st_size} bytes")
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    info = bytearray(LOOP_INFO64_BYTES)
    struct.pack_into("=QQ", info, LO_OFFSET_AT, leg.offset, leg.length)
    struct.pack_into("=I", info, LO_FLAGS_AT, flags)
    config = struct.pack("=II", backing, SECTOR) + bytes(info) + bytes(LOOP_CONFIG_RESERVED_BYTES)
    try:
        fcntl.ioctl(handle, LOOP_CONFIGURE, config)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Refusal("busy", "another process took the loop device") from None
        raise


def attach_loop(backing: int, leg: Leg, read_only: bool, caller: Caller) -> Device:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(LOOP_ATTEMPTS):
            name = f"loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            handle = open_device(f"/dev/{name}", os.O_RDWR)
            try:
                as_caller(caller, lambda: configure_loop(handle, backing, leg, read_only))  # noqa: B023
                facts = (int(sysfs(f"{name}/size")) * SECTOR, int(sysfs(f"{name}/loop/offset")))
                asked = facts == (leg.length, leg.offset)
                require(asked, "bad-range", f"{name} became {facts[0]} bytes at {facts[1]}, not as asked")
                return Device(name, handle)
            except Refusal as refusal:
                os.close(handle)
                if refusal.code != "busy":
                    raise
    finally:
        os.close(control)
    raise Refusal("device-failed", "no loop device stayed free long enough")


# ---------------------------------------------------------------- NBD, by generic netlink

# linux/netlink.h
NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLMSGHDR = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port."""
NLATTR = struct.Struct("=HH")
"""Length, type."""
ALIGNMENT = 4
"""Bytes, of messages and attributes (NLMSG_ALIGNTO, NLA_ALIGNTO)."""
ANSWER_BYTES = 65536
# linux/genetlink.h
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
GENLMSGHDR = struct.Struct("=BBH")
"""Command, version, reserved."""
GENL_VERSION = 1
"""Of the nbd family (NBD_GENL_VERSION); the controller accepts any."""
GENL_BODY_AT = NLMSGHDR.size + GENLMSGHDR.size
# linux/nbd-netlink.h
NBD_CMD_CONNECT, NBD_CMD_DISCONNECT, NBD_CMD_RECONFIGURE = 1, 2, 3
NBD_ATTR_INDEX, NBD_ATTR_SIZE_BYTES, NBD_ATTR_BLOCK_SIZE_BYTES, NBD_ATTR_TIMEOUT = 1, 2, 3, 4
NBD_ATTR_SERVER_FLAGS, NBD_ATTR_CLIENT_FLAGS, NBD_ATTR_SOCKETS, NBD_ATTR_BACKEND_IDENTIFIER = 5, 6, 7, 10
NBD_SOCK_ITEM, NBD_SOCK_FD = 1, 1
# linux/nbd.h
NBD_CFLAG_DISCONNECT_ON_CLOSE = 2
NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY = 1, 2
NBD_FLAGS_PASSED = 0x17F
"""Flags of an export that the kernel gets: bits 0 to 6 and 8 of the transmission flags in the NBD protocol
(github.com/NetworkBlockDevice/nbd, doc/proto.md): what the server can do, up to CAN_MULTI_CONN, without DF."""


def attribute(kind: int, value: bytes | int, form: str = "=Q") -> bytes:
    payload = struct.pack(form, value) if isinstance(value, int) else value
    return NLATTR.pack(NLATTR.size + len(payload), kind) + payload + bytes(-len(payload) % ALIGNMENT)


def aligned(length: int) -> int:
    return length + ALIGNMENT - 1 & -ALIGNMENT


class Netlink:
    """The `nbd` family. Raises OSError; ENOENT when this kernel, or this network namespace, has none."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self._socket.settimeout(NETLINK_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 0
        answer = self._ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, attribute(CTRL_ATTR_FAMILY_NAME, b"nbd\0"))
        self._family = struct.unpack("=H", answer[CTRL_ATTR_FAMILY_ID])[0]

    def _ask(self, family: int, command: int, attributes: bytes) -> dict[int, bytes]:
        self._sequence += 1
        body = GENLMSGHDR.pack(command, GENL_VERSION, 0) + attributes
        length, flags = NLMSGHDR.size + len(body), NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(NLMSGHDR.pack(length, family, flags, self._sequence, 0) + body)
        answer: dict[int, bytes] = {}
        while True:
            data = self._socket.recv(ANSWER_BYTES)
            while len(data) >= GENL_BODY_AT:
                length, kind, _, sequence, _ = NLMSGHDR.unpack_from(data)
                message, data = data[:length], data[max(GENL_BODY_AT, aligned(length)) :]
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:  # also the acknowledgement, with the code 0
                    code = -struct.unpack_from("=i", message, NLMSGHDR.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answer
                position = GENL_BODY_AT
                while position + NLATTR.size <= len(message):
                    size, name = NLATTR.unpack_from(message, position)
                    answer[name & NLA_TYPE_MASK] = message[position + NLATTR.size : position + size]
                    position += max(NLATTR.size, aligned(size))

    def connect(self, connection: int, size: int, flags: int, name: str) -> int:
        """Number of the device; open it, then call `close_with_last_user`.

        After a disconnect its node stays, without a size: an `lvs` of the host that reads it at that moment would
        complain about a vanished node.
        """
        item = attribute(NLA_F_NESTED | NBD_SOCK_ITEM, attribute(NBD_SOCK_FD, connection, "=I"))
        answer = self._ask(
            self._family,
            NBD_CMD_CONNECT,
            attribute(NBD_ATTR_SIZE_BYTES, size)
            + attribute(NBD_ATTR_BLOCK_SIZE_BYTES, SECTOR)
            + attribute(NBD_ATTR_TIMEOUT, NBD_TIMEOUT)
            + attribute(NBD_ATTR_SERVER_FLAGS, flags)
            + attribute(NBD_ATTR_CLIENT_FLAGS, 0)  # not yet DISCONNECT_ON_CLOSE, which would race with udev's open
            + attribute(NBD_ATTR_BACKEND_IDENTIFIER, name.encode() + b"\0")
            + attribute(NLA_F_NESTED | NBD_ATTR_SOCKETS, item),
        )
        return int(struct.unpack("=I", answer[NBD_ATTR_INDEX])[0])

    def close_with_last_user(self, index: int, name: str) -> None:
        self._ask(
            self._family,
            NBD_CMD_RECONFIGURE,
            attribute(NBD_ATTR_INDEX, index, "=I")
            + attribute(NBD_ATTR_CLIENT_FLAGS, NBD_CFLAG_DISCONNECT_ON_CLOSE)
            + attribute(NBD_ATTR_BACKEND_IDENTIFIER, name.encode() + b"\0"),
        )

    def disconnect(self, index: int) -> None:
        self._ask(self._family, NBD_CMD_DISCONNECT, attribute(NBD_ATTR_INDEX, index, "=I"))


def attach_nbd(netlink: Netlink, connection: int, export: Export, read_only: bool) -> Device:
    with socket.socket(fileno=os.dup(connection)) as sock:
        stream = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
        require(stream, "bad-fd", "a descriptor is not a unix stream socket")
        sock.getpeername()
    size, flags = export
    allowed = flags & NBD_FLAG_HAS_FLAGS and (read_only or not flags & NBD_FLAG_READ_ONLY)
    require(bool(allowed), "bad-request", "the export's flags do not allow what was asked")
    name = identifier()
    passed = (flags & NBD_FLAGS_PASSED) | (NBD_FLAG_READ_ONLY if read_only else 0)
    index = netlink.connect(connection, size, passed, name)
    try:
        handle = open_device(f"/dev/nbd{index}", os.O_RDONLY if read_only else os.O_RDWR)
        netlink.close_with_last_user(index, name)
        found = int(sysfs(f"nbd{index}/size")) * SECTOR
        require(found == size, "bad-range", f"nbd{index} became {found} bytes instead of {size}")
    except BaseException:
        netlink.disconnect(index)
        raise
    return Device(f"nbd{index}", handle)


# ---------------------------------------------------------------- device-mapper

# linux/dm-ioctl.h
DM_VERSION, DM_LIST_DEVICES, DM_DEV_CREATE, DM_DEV_REMOVE, DM_DEV_SUSPEND, DM_TABLE_LOAD = 0, 2, 3, 4, 6, 9
DM_GET_TARGET_VERSION = 17
DM_IOCTL = 0xC138FD00
"""_IOWR(0xfd, 0, struct dm_ioctl), to which the command is added."""
DM_READONLY_FLAG, DM_SECURE_DATA_FLAG, DM_DEFERRED_REMOVE = 1 << 0, 1 << 15, 1 << 17
DM_VERSION_MAJOR = 4
DM_HEADER = struct.Struct("=IIIIIIiIIIQ")
"""struct dm_ioctl up to its name: version (3 numbers), data_size, data_start, target_count, open_count, flags,
event_nr, padding, dev."""
DM_DEV_AT, DM_NAME_AT, DM_DATA_AT = 40, 48, 312
"""Offsets in struct dm_ioctl, whose size is the last of them."""
DM_ANSWER_BYTES = 16384
DM_TARGET_SPEC = struct.Struct("=QQiI16s")
"""struct dm_target_spec: start and length in sectors, status, bytes to the next one, type. Its parameters follow."""
DM_ALIGNMENT = 8
DM_NAME_LIST = struct.Struct("=QI")
"""struct dm_name_list up to its name: dev, bytes to the next one."""
UDEV_IGNORES = 0x6E << 16
"""Upper half of a udev cookie (libdevmapper.h, DM_UDEV_FLAGS_SHIFT): DISABLE_SUBSYSTEM_RULES, DISABLE_DISK_RULES,
DISABLE_OTHER_RULES, DISABLE_LIBRARY_FALLBACK, PRIMARY_SOURCE."""
REGION_SECTORS_MAX = 1024
"""Of a mirror (the kernel's documentation of dm-log); a power of two that is no larger than the device."""


class Mapper:
    """device-mapper's control node. Raises OSError when this kernel has none."""

    def __init__(self) -> None:
        self._control = os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC)
        self._call(DM_VERSION)

    def _call(
        self, command: int, name: str = "", *, flags: int = 0, event: int = 0, targets: int = 0, data: bytes = b""
    ) -> bytearray:
        buffer = bytearray(DM_ANSWER_BYTES + len(data))
        version = (DM_VERSION_MAJOR, 0, 0)
        DM_HEADER.pack_into(buffer, 0, *version, len(buffer), DM_DATA_AT, targets, 0, flags, event, 0, 0)
        buffer[DM_NAME_AT : DM_NAME_AT + len(name)] = name.encode()
        buffer[DM_DATA_AT : DM_DATA_AT + len(data)] = data
        fcntl.ioctl(self._control, DM_IOCTL | command, buffer)
        return buffer

    def make(self, name: str, rows: list[tuple[int, str, str]], read_only: bool) -> Device:
        """A device of these rows (bytes, target, parameters); it is removed when its last user closes it."""
        table, start = b"", 0
        for length, target, parameters in rows:
            # with a zero byte after the parameters
            size = DM_TARGET_SPEC.size + len(parameters) + DM_ALIGNMENT & -DM_ALIGNMENT
            table += DM_TARGET_SPEC.pack(start // SECTOR, length // SECTOR, 0, size, target.encode())
            table += parameters.encode().ljust(size - DM_TARGET_SPEC.size, b"\0")
            start += length
        created = self._call(DM_DEV_CREATE, name)
        try:
            minor = os.minor(struct.unpack_from("=Q", created, DM_DEV_AT)[0])
            flags = DM_SECURE_DATA_FLAG | (DM_READONLY_FLAG if read_only else 0)  # there may be a key in the table
            self._call(DM_TABLE_LOAD, name, flags=flags, targets=len(rows), data=table)
            handle = open_device(f"/dev/dm-{minor}", os.O_RDONLY if read_only else os.O_RDWR)
        except BaseException:
            self.remove(name)
            raise
        self._call(DM_DEV_REMOVE, name, flags=DM_DEFERRED_REMOVE)  # at the last close
        self._call(DM_DEV_SUSPEND, name, event=UDEV_IGNORES)  # without DM_SUSPEND_FLAG: resume
        return Device(f"dm-{minor}", handle)

    def has(self, target: str) -> bool:
        try:
            self._call(DM_GET_TARGET_VERSION, target)  # loads the target's module
        except OSError:
            return False
        return True

    def remove(self, name: str) -> None:
        self._call(DM_DEV_REMOVE, name)

    def names(self) -> list[str]:
        data = self._call(DM_LIST_DEVICES)
        position, found = DM_DATA_AT, list[str]()
        while True:
            number, step = DM_NAME_LIST.unpack_from(data, position)
            if not number:
                return found
            begin = position + DM_NAME_LIST.size
            found.append(data[begin : data.index(0, begin)].decode(errors="replace"))
            if not step:
                return found
            position += step


def stack(
    mapper: Mapper, table: list[Stretch], crypts: list[Crypt], keys: list[str], devices: list[str], read_only: bool
) -> Device:
    """One device from whole devices, in the order of the table's legs: they are joined, and decrypted above that."""
    rows, left = [], iter(devices)
    for stretch in table:
        legs = " ".join(f"/dev/{next(left)} 0" for _ in stretch.legs)
        count = len(stretch.legs)
        region = min(REGION_SECTORS_MAX, 1 << (stretch.length // SECTOR).bit_length() - 1)
        parameters = {
            "linear": legs,
            "striped": f"{count} {stretch.chunk // SECTOR} {legs}",
            "mirror": f"core 2 {region} nosync {count} {legs} 1 handle_errors",
        }[stretch.kind]
        rows.append((stretch.length, stretch.kind, parameters))
    joined = mapper.make(identifier(), rows, read_only)
    if not crypts:
        return joined
    rows, start = [], 0
    for stretch, crypt, key in zip(table, crypts, keys, strict=True):
        parameters = f"{crypt.cipher} {key} {crypt.iv} /dev/{joined.name} {start} 1 sector_size:{crypt.sector}"
        rows.append((stretch.length, "crypt", parameters))
        start += stretch.length // SECTOR
    return mapper.make(identifier("-clear"), rows, read_only)


Driver = TypeVar("Driver", Netlink, Mapper)


def driver(kind: type[Driver], module: str) -> Driver | None:
    """The kernel's NBD or device-mapper, loaded if necessary; None when the kernel has none."""
    for attempt in (1, 2):
        try:
            return kind()
        except OSError:
            if attempt == 1:
                load_module(module)
    return None


# ---------------------------------------------------------------- names that outlive a process, and their sweep

START_TIME_AT = 22 - 3
"""proc_pid_stat(5): starttime is field 22, and field 3 is the first one after the name in parentheses."""


def started(pid: int | str) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[START_TIME_AT]


def identifier(suffix: str = "") -> str:
    """Name for a device of this process, from which a later helper determines whether this process still runs."""
    return f"h2k-{os.getpid()}-{started('self')}{suffix}"


def abandoned(name: str) -> bool:
    match = re.fullmatch(r"h2k-(\d{1,10})-(\d{1,20})(-clear)?", name)
    if match is None:
        return False
    try:
        return started(match[1]) != match[2]
    except OSError:
        return True


def sweep(netlink: Netlink | None, mapper: Mapper | None) -> None:
    """Remove devices of helpers that were killed in one of the two windows; a device in use is busy and stays."""
    if mapper:
        for name in filter(abandoned, mapper.names()):
            with suppress(OSError):
                mapper.remove(name)
                syslog.syslog(syslog.LOG_WARNING, f"swept the abandoned mapping {name}")
    if netlink:
        for name in os.listdir("/sys/block"):
            with suppress(OSError, Refusal):
                if name.startswith("nbd") and abandoned(sysfs(f"{name}/backend")):
                    os.close(open_device(f"/dev/{name}", os.O_RDONLY | os.O_EXCL))
                    netlink.disconnect(int(name[3:]))
                    syslog.syslog(syslog.LOG_WARNING, f"swept the abandoned device {name}")


# ---------------------------------------------------------------- the mount

# linux/mount.h
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOATIME = 1, 2, 4, 8, 0x10
MOUNT_ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR = struct.Struct("=QQQQ")
"""struct mount_attr: attributes to set, to clear, propagation, descriptor of a user namespace."""
MOVE_MOUNT_F_EMPTY_PATH = 4
OPEN_TREE_CLONE = 1
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
# linux/fcntl.h
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
# linux/btrfs.h
BTRFS_IOC_FS_INFO, BTRFS_IOC_DEV_INFO = 0x8400941F, 0xD000941E
BTRFS_FS_INFO_BYTES, BTRFS_DEV_INFO_BYTES = 1024, 4096
BTRFS_DEV_PATH_AT = 3072
"""Offset in struct btrfs_ioctl_dev_info_args."""
# fsopen(2): a message begins with its level and a space
MESSAGE_TEXT_AT = 2
MESSAGE_BYTES, MESSAGES_MAX = 1024, 8
EXPLANATION_CHARACTERS = 600


def id_map(caller: Caller) -> int | None:
    """A user namespace in which the caller is root; None for root, who needs none."""
    if caller.uid == 0:
        return None
    source, sink = os.pipe()

    def step() -> None:
        if libc.unshare(CLONE_NEWUSER) == 0:
            os.write(sink, b"x")
            signal.pause()

    with child(step) as pid:
        os.close(sink)
        inside = os.read(source, 1) == b"x"
        if not inside:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            by_itself = ended is not None and ended.si_code == os.CLD_EXITED
            require(by_itself, "killed", "a process of the helper was killed")
        require(inside, "unsupported", "this kernel allows no user namespace, which id-mapped mounts need")
        os.close(source)
        for name, value in (("uid_map", caller.uid), ("gid_map", caller.gid)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"0 {value} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def open_file_system(fstype: str) -> int:
    try:
        return syscall(FSOPEN, fstype.encode() + b"\0", FSOPEN_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Refusal("unsupported", f"this kernel has no {fstype}") from None
        raise


def mount(device: Device, fstype: str, read_only: bool, mapping: int | None, owner: int) -> int:
    """A detached mount, which exists only while its descriptor is open.

    The user `owner` may use what ext4 reserves for root: they write as the guest's root.
    """
    context = open_file_system(fstype)
    options = (("source", f"/dev/{device.name}"), *OPTIONS[fstype], *((("ro", None),) if read_only else ()))
    if fstype == "ext4":
        options += (("resuid", str(owner)),)
    attributes = MOUNT_ATTRIBUTES | (MOUNT_ATTR_RDONLY if read_only else 0)
    step = "mount"
    try:
        for name, value in options:
            step = f"set {name} for"
            key, text = name.encode() + b"\0", value.encode() + b"\0" if value else None
            syscall(FSCONFIG, context, FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING, key, text, 0)
        step = "mount"
        syscall(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        result = syscall(FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)
        if not lies_on(result, fstype, device):
            raise Refusal("mount-failed", f"the {fstype} that was mounted is not on {device.name} alone")
        if mapping is not None:
            step = "id-map"
            setting = MOUNT_ATTR.pack(MOUNT_ATTR_IDMAP, 0, 0, mapping)
            syscall(MOUNT_SETATTR, result, b"\0", AT_EMPTY_PATH, setting, len(setting))
    except OSError as error:
        fact = f"cannot {step} {fstype}: {error.strerror}{explanation(context)}"
        if step == "id-map" and error.errno == errno.EINVAL:
            raise Refusal("unsupported", fact) from None
        if step == "mount" and read_only and error.errno == NEEDS_REPLAY.get(fstype):
            raise Refusal("journal-dirty", fact) from None
        if error.errno in DEVICE_FAULTS:
            raise Refusal("device-failed", fact) from None
        raise Refusal("mount-failed", fact) from None
    os.close(context)
    return result


def lies_on(mounted: int, fstype: str, device: Device) -> bool:
    """Whether the mount is on this device and on no other.

    btrfs adds other devices of the same UUID that the host has seen, and has a device number of its own; so its
    devices are queried.
    """
    if fstype != "btrfs":
        return os.fstat(mounted).st_dev == os.fstat(device.handle).st_rdev
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    try:
        facts = fcntl.ioctl(handle, BTRFS_IOC_FS_INFO, bytes(BTRFS_FS_INFO_BYTES))
        newest, count = struct.unpack_from("=QQ", facts)  # max_id, num_devices
        about = bytearray(struct.pack("=Q", newest).ljust(BTRFS_DEV_INFO_BYTES, b"\0"))
        fcntl.ioctl(handle, BTRFS_IOC_DEV_INFO, about)
        return count == 1 and about[BTRFS_DEV_PATH_AT:].rstrip(b"\0").decode(errors="replace") == f"/dev/{device.name}"
    finally:
        os.close(handle)


def lock_mount_flags(mounted: int) -> int:
    """The same mount with flags that its holder cannot change.

    The holder of a detached mount could enter a user namespace of its own, clear nodev there, and open a device node
    in the image. The kernel locks the flags of mounts that it copies into a less privileged mount namespace; a
    detached clone that is made there keeps the locks.
    """
    ours, theirs = socket.socketpair()

    def step() -> None:
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            return
        syscall(MOVE_MOUNT, mounted, b"\0", AT_FDCWD, b"/proc\0", MOVE_MOUNT_F_EMPTY_PATH)
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0:
            clone = syscall(OPEN_TREE, AT_FDCWD, b"/proc\0", OPEN_TREE_CLONE | os.O_CLOEXEC)  # OPEN_TREE_CLOEXEC
            socket.send_fds(theirs, [b"x"], [clone])

    with child(step):
        theirs.close()
        clones = socket.recv_fds(ours, 1, 1)[1]
    os.close(mounted)
    require(len(clones) == 1, "unsupported", "this kernel does not let the flags of a mount be locked")
    return clones[0]


def explanation(context: int) -> str:
    """The messages of the file system itself, if there are any."""
    said: list[str] = []
    with suppress(OSError):
        while len(said) < MESSAGES_MAX:
            said.append(os.read(context, MESSAGE_BYTES)[MESSAGE_TEXT_AT:].decode(errors="replace").strip())
    return f" ({'; '.join(said)[:EXPLANATION_CHARACTERS]})" if said else ""


# ---------------------------------------------------------------- the verbs


def probe(request: Probe, caller: Caller) -> dict[str, Any]:
    mapping = id_map(caller)
    if mapping is not None:
        os.close(mapping)
    able = []
    for fstype in request.fstypes:
        known = isinstance(fstype, str) and fstype in OPTIONS
        require(known, "bad-request", "a file system is not one that is mounted here")
        with suppress(Refusal):
            os.close(open_file_system(fstype))
            able.append(fstype)
    netlink, mapper = driver(Netlink, "nbd"), driver(Mapper, "dm_mod")
    sweep(netlink, mapper)
    loop = os.access("/dev/loop-control", os.R_OK | os.W_OK)
    targets = [target for target in TARGETS if mapper and mapper.has(target)]
    return {"ok": True, "fstypes": able, "loop": loop, "nbd": netlink is not None, "dm": targets}


def serve_mount(request: Mount, fds: list[int], caller: Caller) -> tuple[dict[str, Any], int]:
    fstype, transport, read_only = request.fstype, request.transport, request.read_only
    require(fstype in OPTIONS, "bad-request", "the file system is not one that is mounted here")
    require(transport in ("file", "nbd"), "bad-request", "the transport is neither file nor nbd")
    table, crypts = parse_table(request, fds)
    legs = [leg for stretch in table for leg in stretch.legs]
    exports = [shaped(entry, Export) for entry in request.nbd]
    sockets = len({leg.fd for leg in legs}) if transport == "nbd" else 0
    require(len(exports) == sockets, "bad-request", "there must be one export for each socket and none for a file")
    keys = [read_key(fds[crypt.key], crypt.cipher) for crypt in crypts]
    stacked = len(legs) > 1 or bool(crypts)
    netlink = driver(Netlink, "nbd") if transport == "nbd" else None
    mapper = driver(Mapper, "dm_mod") if stacked else None
    require(transport == "file" or netlink is not None, "unsupported", "this kernel has no NBD")
    for target in {*(stretch.kind for stretch in table), *(["crypt"] if crypts else [])} if stacked else ():
        there = mapper is not None and mapper.has(target)
        require(there, "unsupported", f"this kernel has no device-mapper with the target {target}")
    keep_only_needed_capabilities()
    sweep(netlink, mapper)
    mapping = id_map(caller)
    devices = []
    for leg in legs:
        if netlink is None:
            devices.append(attach_loop(fds[leg.fd], leg, read_only, caller))
            continue
        export = exports[leg.fd]
        alone = (leg.offset, leg.length) == (0, export.size) and len(legs) == len(exports)
        require(alone, "bad-range", "an NBD export must be exactly one leg")
        devices.append(attach_nbd(netlink, fds[leg.fd], export, read_only))
    device = devices[0]
    if mapper is not None:
        device = stack(mapper, table, crypts, keys, [part.name for part in devices], read_only)
    mounted = mount(device, fstype, read_only, mapping, caller.uid)
    return {"ok": True, "device": device.name}, mounted if caller.uid == 0 else lock_mount_flags(mounted)


def serve(channel: socket.socket, caller: Caller) -> tuple[str, dict[str, Any], int | None]:
    """The request (for the log), the reply, and the mount."""
    asked = "?"
    try:
        request, fds = receive(channel)
        asked = f"{request.verb} job={request.job}"
        if isinstance(request, Mount):
            asked += f" {request.fstype} {request.transport} read_only={request.read_only}"
            return asked, *serve_mount(request, fds, caller)
        require(not fds, "bad-fd", "a probe has no descriptors")
        return asked, probe(request, caller), None
    except Refusal as refusal:
        return asked, {"error": refusal.code, "message": refusal.message}, None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return asked, {"error": "device-failed", "message": f"{where}{error.strerror or error}"}, None
    except Exception as error:
        return asked, {"error": "internal", "message": f"{type(error).__name__}: {error}"}, None


def plain(text: str) -> str:
    """One line of printable ASCII."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    return re.sub(r"[^ -~]", lambda match: f"\\x{ord(match[0]):02x}", escaped)[:LINE_CHARACTERS]


def out_of_time(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CLEANUP_SECONDS)
    raise Refusal("timed-out", f"the kernel did not finish within {TIME_LIMIT} s")


def become_plain() -> None:
    """Undo settings that a caller may have made: blocked or ignored signals, closed standard streams, core dumps."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TIME_LIMIT)
    while True:
        handle = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if handle not in STANDARD_STREAMS:
            os.close(handle)
            break
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.chdir("/")


def main() -> int:
    become_plain()
    syslog.openlog("hyper2kvm-helper", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        require(len(sys.argv) == 1, "bad-request", "no argument is taken")
        channel = socket.socket(fileno=0)
        caller = identify(channel)
    except (Refusal, OSError) as error:
        syslog.syslog(syslog.LOG_ERR, plain(f"refused: {error}"))
        sys.stderr.write(plain(f"hyper2kvm helper: {error}") + "\n")
        return REFUSED
    asked, reply, result = serve(channel, caller)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    level = syslog.LOG_INFO if "ok" in reply else syslog.LOG_WARNING
    syslog.syslog(level, plain(f"uid={caller.uid} {asked}: {json.dumps(reply)}"))
    rights = [] if result is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [result]))]
    try:
        channel.sendmsg([json.dumps(reply).encode()], rights)
    except OSError:
        return CALLER_GONE  # the caller is gone; its mount ends with this process
    # the caller waits until its channel closes: nothing else may stay open longer
    os.closerange(len(STANDARD_STREAMS), DESCRIPTORS_END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
