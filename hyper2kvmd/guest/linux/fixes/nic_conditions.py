"""What the guest's configuration knows its network cards by: MAC address, driver, place on the PCI bus.

Looks for conditions that only VMware's card meets. A MAC address becomes the one that the card has now, VMware's
drivers become virtio_net, a place on the bus becomes the MAC address. Names, addresses and routes stay.
"""

from __future__ import annotations

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always
from hyper2kvmd.guest.linux.network.survey import FORMATS, MAX_FILES

SUMMARY = "network cards are matched by their properties on KVM"


def apply(case: Case) -> list[str]:
    """One file that cannot be mended is no reason to leave the others."""
    warnings = list(case.cards.warnings)
    for kind in FORMATS:
        for path in kind.files(case.tree)[:MAX_FILES]:
            try:
                text = kind.visit(path, case.tree.read_text(path), case.cards.choose)
                case.tree.write_text(path, text, fix=FIX.name, summary=SUMMARY)
            except MigrationFailed as failure:
                warnings.append(failure.message)
    return warnings


FIX = Fix("nic-conditions", required=False, wanted=always, apply=apply)
