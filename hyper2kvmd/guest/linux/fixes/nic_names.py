"""The names of network interfaces: each card gets the one that the guest's configuration uses, by its MAC address.

On KVM a card has another place on the bus, so udev would rename ens192 to enp1s0, and its static address would be lost.
One udev rule per card prevents that from udev 147 to today's systemd; before systemd 240, a .link file would not apply
to a card that the initramfs has already renamed. Required, because a server without its address is not migrated.
Sources: udev(7), systemd.link(5), systemd issues 9006 and 9807.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always
from hyper2kvmd.model.guest import Nic

RULES = "/etc/udev/rules.d/71-hyper2kvm-net.rules"
"""After 70-persistent-net.rules, whose lines it overrides; before 75-persistent-net-generator.rules, which adds lines
for cards without a name, and 80-net-setup-link.rules, which names those by their place."""
HEAD = "# Added by hyper2kvm: each network card keeps the name that this guest's configuration uses.\n"


def early_rules(case: Case) -> str:
    """The rules that an initramfs needs which uses cards by name; empty if it needs none.

    dracut has `ifname=` instead, which the repairs of the kernel line add.
    """
    pinned = [nic for nic in case.cards.nics if nic.name in case.survey.early]
    return HEAD + "".join(map(_rule, pinned)) if pinned and case.survey.has_udev and not case.survey.dracut else ""


def apply(case: Case) -> list[str]:
    pinned = [nic for nic in case.cards.nics if nic.name]
    if not case.survey.has_udev:
        if all(nic.name == f"eth{number}" for number, nic in enumerate(pinned)):
            return []
        names = ", ".join(str(nic.name) for nic in pinned)
        return [f"this guest has no udev to name its network cards. Check that they are still called {names}."]
    if pinned:
        text = HEAD + "".join(map(_rule, pinned))
        names = ", ".join(f"{nic.mac} is {nic.name}" for nic in pinned)
        case.tree.write_text(RULES, text, fix=FIX.name, summary=names)
    return []


def _rule(nic: Nic) -> str:
    """DRIVERS excludes the bonds, bridges and VLANs that share the card's address: they have no bus."""
    card = f'DRIVERS=="?*", ATTR{{address}}=="{nic.mac}", ATTR{{type}}=="1"'
    return f'SUBSYSTEM=="net", ACTION=="add", {card}, NAME="{nic.name}"\n'


FIX = Fix("nic-names", required=True, wanted=always, apply=apply)
