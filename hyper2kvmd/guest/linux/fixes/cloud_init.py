"""cloud-init: the guest stays the instance that it was on VMware.

cloud-init looks for its data source again at each boot. Without VMware's (or the CD that came with it), it takes the
machine for a new one: DHCP replaces the static address, the SSH host keys and passwords change. A NoCloud seed in the
guest's own /var gives it the same instance ID and user data, so that nothing that runs once per instance runs again.
Sources: cloud-init's documentation of NoCloud, of network configuration and of ds-identify; cloudinit/stages.py.
"""

from __future__ import annotations

import json
import posixpath
import re

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always

CLOUD = "/var/lib/cloud"
INSTANCE = f"{CLOUD}/instance"
SEED = f"{CLOUD}/seed/nocloud"
CONFIG = "/etc/cloud/cloud.cfg"
SETTINGS = "/etc/cloud/cloud.cfg.d/zz-hyper2kvm.cfg"
"""Read last, so that it replaces the datasource_list of a template."""
DISABLED = "/etc/cloud/cloud-init.disabled"
IDENTIFY = "/etc/cloud/ds-identify.cfg"
FORCED = re.compile(r"^([ \t]*datasource:[ \t]*)(?!NoCloud\b)[^\s#]+", re.MULTILINE)
NO_SOURCE = re.compile(r"DataSourceNone\b")
TEXT = """\
# Added by hyper2kvm: this machine is the instance that it was on VMware, and keeps its network configuration.
# To let cloud-init set the machine up anew: remove this file and the folder /var/lib/cloud/seed/nocloud.
datasource_list: [ NoCloud, None ]
network: {config: disabled}
preserve_hostname: true
"""
DATA = (("user-data", "user-data.txt"), ("vendor-data", "vendor-data.txt"))
"""Files of the seed, and their contents on the last boot, below the folder of the instance."""


def apply(case: Case) -> list[str]:
    tree = case.tree
    if not tree.is_file(CONFIG) or tree.is_file(DISABLED):
        return []
    if not tree.is_dir("/var/lib"):
        fact = "/var could not be read: without its data source of VMware, cloud-init sets this machine up anew"
        return [f"{fact}, with DHCP and new SSH host keys. Create {DISABLED} to prevent that."]
    source = tree.text_or_empty(f"{INSTANCE}/datasource").strip()
    if not tree.is_dir(INSTANCE) or _is_lasting(source):
        return []
    identity = _instance_id(case)
    summary = f"cloud-init keeps instance {identity}, which {source.split(':')[0] or 'its data source'} set up"
    folder = tree.canonical(INSTANCE)
    tree.write_text(f"{SEED}/meta-data", f"instance-id: {json.dumps(identity)}\n", fix=FIX.name, summary=summary)
    for name, cached in DATA:
        if tree.is_file(f"{folder}/{cached}"):
            # a link, because the data may contain passwords, which must not be in the report's diff
            tree.symlink(f"{SEED}/{name}", f"{folder}/{cached}", fix=FIX.name, summary=summary)
        elif not tree.is_file(f"{SEED}/{name}"):
            tree.write_text(f"{SEED}/{name}", "", fix=FIX.name, summary=summary)
    tree.write_text(SETTINGS, TEXT, fix=FIX.name, summary=summary)
    if tree.is_file(IDENTIFY):
        text = FORCED.sub(r"\1NoCloud", tree.read_text(IDENTIFY))
        tree.write_text(IDENTIFY, text, fix=FIX.name, summary=summary)
    return []


def _is_lasting(source: str) -> bool:
    """Whether this data source is the same on every platform."""
    seeds = source.partition("DataSourceNoCloud")[2].split("[seed=")[1:]
    return bool(NO_SOURCE.search(source)) or any(f"{CLOUD}/seed/" in seed.partition("]")[0] for seed in seeds)


def _instance_id(case: Case) -> str:
    stored = case.tree.text_or_empty(f"{CLOUD}/data/instance-id").strip()
    return stored or posixpath.basename(case.tree.canonical(INSTANCE))


FIX = Fix("cloud-init", required=True, wanted=always, apply=apply)
