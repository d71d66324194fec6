"""Settings that only make sense for VMware's network cards, and those that fail on any other card.

Removes options and aliases of VMware's drivers in the module configuration, udev rules that tune such a card, and
`ethtool` in /etc/network/interfaces that sizes rings, queues or interrupt moderation. virtio_net rejects values that
vmxnet3 accepted, and ifupdown then leaves the interface half configured.
Sources: modprobe.d(5), modules-load.d(5), interfaces(5), ethtool(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hyper2kvmd.errors import MigrationFailed, sentences
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files
from hyper2kvmd.guest.linux.network import ifupdown, udev
from hyper2kvmd.guest.linux.network.selector import VMWARE_DRIVERS, is_vmware_driver

DRIVERS = "|".join(VMWARE_DRIVERS)
MODPROBE = re.compile(rf"[ \t]*(options[ \t]+({DRIVERS})\b.*|alias[ \t]+eth\d+[ \t]+({DRIVERS})[ \t]*)")
MODULES = re.compile(r"[ \t]*(vmxnet3|vmxnet)[ \t]*")
"""VMware's own: newer kernels lack vmxnet, so loading it fails the unit that loads modules."""
TUNING = re.compile(
    r"[ \t]*(pre-up|up|post-up)[ \t]+(/\S*/)?ethtool[ \t]+"
    r"(-G|--set-ring|-L|--set-channels|-C|--coalesce)[ \t].*|[ \t]*hardware-(dma-ring|irq-coalesce)-\S+[ \t].*"
)
VMWARE_MACS = ("00:50:56:*", "00:0c:29:*", "00:05:69:*", "00:1c:14:*")
PLACES: tuple[tuple[tuple[str, ...], Callable[[str], bool]], ...] = (
    (("/etc/modprobe.conf", "/etc/modprobe.d/*.conf"), lambda line: MODPROBE.fullmatch(line) is not None),
    (("/etc/modules", "/etc/modules-load.d/*.conf"), lambda line: MODULES.fullmatch(line) is not None),
    (("/etc/udev/rules.d/*.rules",), lambda line: _tunes_vmware(line)),
)


def apply(case: Case) -> list[str]:
    warnings = []
    files = [(path, useless) for patterns, useless in PLACES for path in regular_files(case, *patterns)]
    files += [(path, lambda line: TUNING.fullmatch(line) is not None) for path in ifupdown.files(case.tree)]
    for path, useless in files:
        try:
            lines = udev.LINE.split(case.tree.read_text(path))
            text = "\n".join(line for line in lines if not useless(line))
            case.tree.write_text(path, text, fix=FIX.name, summary="settings of VMware's network cards are gone")
        except MigrationFailed as failure:
            warnings.append(sentences(failure.message, failure.hint))
    return warnings


def _tunes_vmware(line: str) -> bool:
    """Whether it is a rule for VMware's cards, by driver or vendor, that only tunes them and names none."""
    tokens = list(udev.TOKEN.finditer(line))
    if line.lstrip().startswith("#") or any(token[1] == "NAME" and token[3] != "==" for token in tokens):
        return False
    net = any(token[1] == "SUBSYSTEM" and token[4] == "net" for token in tokens)
    return net and any(
        token[3] == "=="
        and (
            (udev.key(token) in udev.DRIVERS and is_vmware_driver(token[4]))
            or (udev.key(token) in udev.ADDRESSES and token[4].lower() in VMWARE_MACS)
        )
        for token in tokens
    )


FIX = Fix("vmware-network", required=False, wanted=always, apply=apply)
