"""ifcfg files: Red Hat's network-scripts and SUSE's wicked. Shell assignments, read as text, never run.

Sources: initscripts' sysconfig.txt, nm-settings-ifcfg-rh(5), ifcfg(5) and ifcfg-bonding(5) of wicked.
"""

from __future__ import annotations

import posixpath
import re

from hyper2kvmd.guest.linux.network.selector import Choose, Selector, lower_name
from hyper2kvmd.mac import normal_mac

ASSIGNMENT = re.compile(
    r"^([ \t]*([A-Za-z_][A-Za-z0-9_]*)=)([\"']?)([^\"'\n#]*+(?=[\"'])|(?:[ \t]*+[^\"'\n# \t])*+)\3([ \t]*(?:#.*)?)$",
    re.MULTILINE,
)
LOWER = re.compile(r"PHYSDEV|ETHERDEVICE|BRIDGE_PORTS|BONDING_SLAVE_?\d+|TEAM_PORT_DEVICE_?\d+|MACVLAN_DEVICE")
"""Keys of a virtual interface that name the interfaces below it."""
BACKUP = re.compile(r".*(~|\.(bak|orig|old|save|rpmnew|rpmorig|rpmsave|scpmbackup|swp))")


def is_read(path: str) -> bool:
    """Whether the guest's own tools read the file: they skip backups and the template of loopback."""
    name = posixpath.basename(path)
    return not BACKUP.fullmatch(name) and name not in ("ifcfg-lo", "ifcfg.template")


def visit(file: str, text: str, choose: Choose) -> str:
    values = {match[2].upper(): match[4].strip() for match in ASSIGNMENT.finditer(text)}
    device = values.get("DEVICE") or posixpath.basename(file).removeprefix("ifcfg-")
    is_card = values.get("TYPE", "Ethernet").lower() == "ethernet"
    known = normal_mac(values.get("HWADDR", "")) if is_card else None
    names = [lower_name(device)]
    names += [lower_name(word) for key, value in values.items() if LOWER.fullmatch(key) for word in value.split()]
    nic = choose(Selector(file, 0, tuple(dict.fromkeys(names)), () if known is None else (known,)))
    if nic is None or known in (None, nic.mac):
        return text
    return ASSIGNMENT.sub(
        lambda match: (
            match[1] + match[3] + nic.mac.upper() + match[3] + match[5] if match[2].upper() == "HWADDR" else match[0]
        ),
        text,
    )
