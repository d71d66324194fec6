"""Conditions for network cards in the guest's configuration: MAC address, driver, place on the PCI bus.

Looks for conditions that only VMware's card meets. A MAC address becomes the card's new one, VMware's drivers become
virtio_net, a place on the bus becomes the MAC address. Names, addresses and routes stay.
"""

from __future__ import annotations

from hyper2kvmd.errors import MigrationFailed, sentences
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always
from hyper2kvmd.guest.linux.network.survey import FORMATS, MAX_FILES

SUMMARY = "network cards are matched by their properties on KVM"


def apply(case: Case) -> list[str]:
    """A file that cannot be repaired does not stop the repair of the others."""
    warnings = list(case.cards.warnings)
    for kind in FORMATS:
        for path in kind.files(case.tree)[:MAX_FILES]:
            try:
                text = kind.visit(path, case.tree.read_text(path), case.cards.choose)
                case.tree.write_text(path, text, fix=FIX.name, summary=SUMMARY)
            except MigrationFailed as failure:
                warnings.append(sentences(failure.message, failure.hint))
    return warnings


FIX = Fix("nic-conditions", required=False, wanted=always, apply=apply)
