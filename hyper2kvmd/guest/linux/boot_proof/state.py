"""The state that a booted guest must have, from its files, and the state that it shows on the serial console.

A unit on the throwaway overlay prints the guest's host name, addresses, mounts, failed units and SSH host keys once its
boot is over. It changes nothing and needs no login. Sources: proc(5), systemctl(1), ip-address(8), fstab(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux import fstab
from hyper2kvmd.guest.linux.inspect import hostname_of
from hyper2kvmd.guest.linux.network.addresses import Address, addresses

UNITS = "/etc/systemd/system"
UNIT = f"{UNITS}/hyper2kvm-state.service"
SCRIPT = f"{UNITS}/hyper2kvm-state"
MARK = "h2k-state"
UNIT_TEXT = f"""\
[Unit]
Description=Print the state of this guest for the boot proof
[Service]
Type=simple
ExecStart=/bin/sh {SCRIPT}
"""
SCRIPT_TEXT = f"""\
rounds=0
while [ $rounds -lt 60 ]; do
  case "$(systemctl is-system-running 2>/dev/null)" in starting|initializing) sleep 2;; *) break;; esac
  rounds=$((rounds + 1))
done
show() {{
  echo; echo "{MARK} begin"
  echo "{MARK} host $(cat /proc/sys/kernel/hostname)"
  ip -o addr show | while read -r _ name _ address _; do echo "{MARK} address $name $address"; done
  while read -r _ point _; do echo "{MARK} mount $point"; done </proc/self/mounts
  systemctl --failed --plain --no-legend | while read -r unit _; do echo "{MARK} failed $unit"; done
  for key in /etc/ssh/ssh_host_*_key.pub; do
    [ -r "$key" ] && read -r kind text _ <"$key" && echo "{MARK} key $kind $text"
  done
  echo "{MARK} end"
}}
sleep 2; show >/dev/ttyS0 2>/dev/null
sleep 2; show >/dev/ttyS0 2>/dev/null
"""
"""Twice, because messages of the kernel can break a line."""
LINE = re.compile(rf"^{MARK} (host|address|mount|failed|key) (\S{{1,2000}})(?: (\S{{1,2000}}))?[ \t]*$", re.MULTILINE)
END = re.compile(rf"^{MARK} end", re.MULTILINE)
ROUNDS = 2
HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"
UNMOUNTED = ("noauto", "nofail", "_netdev", "x-systemd.automount")
"""Options of mounts that a boot does without."""
NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.sshfs", "9p")
LISTED = 5
SHOWN = 300
"""Characters of a difference."""
COMPARED = 256
"""Addresses, mounts and host keys each. No guest needs as many."""
KEY_BYTES = 64 << 10


@dataclass(frozen=True)
class GuestState:
    hostname: str
    addresses: frozenset[Address]
    mounts: frozenset[str]
    host_keys: frozenset[str]
    """Kind and key, as in known_hosts."""
    failed_units: tuple[str, ...] = ()


def expected_state(tree: GuestTree) -> GuestState:
    """The state that the guest's own files describe. Raises OSError, MigrationFailed."""
    return GuestState(
        hostname=hostname_of(tree),
        addresses=frozenset(islice(addresses(tree), COMPARED)),
        mounts=frozenset(islice(_mounts(tree), COMPARED)),
        host_keys=frozenset(islice(_host_keys(tree), COMPARED)),
    )


def _host_keys(tree: GuestTree) -> Iterator[str]:
    """Kind and key of each file that has both."""
    for path in tree.glob(HOST_KEYS)[:COMPARED]:
        if tree.is_file(path) and tree.size(path) <= KEY_BYTES:
            words = tree.read_text(path).split()[:2]
            if len(words) == 2:
                yield " ".join(words)


def _mounts(tree: GuestTree) -> Iterator[str]:
    for entry in fstab.entries(tree.text_or_empty("/etc/fstab")):
        is_local = entry.mount_point.startswith("/") and entry.fs_type not in ("swap", *NETWORKED)
        if is_local and not set(entry.options) & set(UNMOUNTED):
            yield tree.canonical(entry.mount_point)


def show_state(tree: GuestTree) -> bool:
    """Write the unit that prints the state; False if systemd is not its init. Raises as every write to a guest."""
    if not tree.is_dir(UNITS) or not tree.canonical("/sbin/init").endswith("/systemd"):
        return False
    tree.write_text(SCRIPT, SCRIPT_TEXT, fix="boot-proof", summary="prints its state")
    tree.write_text(UNIT, UNIT_TEXT, fix="boot-proof", summary="prints its state")
    tree.symlink(f"{UNITS}/multi-user.target.wants/hyper2kvm-state.service", UNIT, fix="boot-proof", summary="starts")
    tree.commit()
    return True


def is_complete(console: str) -> bool:
    return len(END.findall(console)) >= ROUNDS


def shown_state(console: str) -> GuestState | None:
    """The state on the console; None if it was not printed to its end."""
    if not END.search(console):
        return None
    lines = [(match[1], match[2], match[3] or "") for match in LINE.finditer(console)]
    return GuestState(
        hostname=next((name for kind, name, _ in lines if kind == "host"), ""),
        addresses=frozenset(Address(name, word.split("/")[0]) for kind, name, word in lines if kind == "address"),
        mounts=frozenset(point.replace("\\040", " ") for kind, point, _ in lines if kind == "mount"),
        host_keys=frozenset(f"{key} {text}" for kind, key, text in lines if kind == "key"),
        failed_units=tuple(dict.fromkeys(unit for kind, unit, _ in lines if kind == "failed")),
    )


def differences(expected: GuestState, shown: GuestState) -> tuple[str, ...]:
    """What is not as it should be, in words."""
    found = []
    if expected.hostname and shown.hostname != expected.hostname:
        found.append(f"its host name is {shown.hostname}, not {expected.hostname}")
    for address in sorted(expected.addresses):
        if not any(other.ip == address.ip and address.interface in ("", other.interface) for other in shown.addresses):
            found.append(f"{address.ip} is not in force{f' on {address.interface}' if address.interface else ''}")
    found += [f"{point} of its fstab is not mounted" for point in sorted(expected.mounts - shown.mounts)]
    kinds = sorted({key.partition(" ")[0] for key in expected.host_keys - shown.host_keys})
    if kinds:
        found.append(f"its SSH host keys changed: {', '.join(kinds)}")
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return tuple(printable(text[:SHOWN]) for text in (*found[:LISTED], *more))
