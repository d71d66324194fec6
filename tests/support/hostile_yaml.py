"""YAMLs that want more than a migration."""

from __future__ import annotations

LEVELS = 40


LAUGHS = "\n".join(["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, LEVELS))])


MERGES = "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, LEVELS))])


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "billion laughs": (LAUGHS, "yaml-refused"),
    "merge keys": (MERGES, "yaml-refused"),
    "an alias of itself": ("vmdk: &a [*a]\n", "yaml-refused"),
    "a constructor": ("vmdk: !!python/object/apply:os.system ['touch PLACE/ran']\n", "yaml-refused"),
    "a tag that types": ("vmdk: !!binary L2V0Yy9wYXNzd2Q=\n", "yaml-refused"),
    "a key given twice": ("vmdk: /srv/a\nvmdk: /etc/shadow\n", "key-duplicate"),
    "the same key, spelled twice": ("output-dir: /srv\noutput_dir: /etc\nvmdk: /a\n", "key-duplicate"),
    "a second document": ("vmdk: /a\n---\nvmdk: /etc/shadow\nvm_name: a\nto_output: b.img\n", "value-conflict"),
    "a thousand machines": (f"vms: [{', '.join(f'{{vmdk: /{n}}}' for n in range(300))}]\n", "yaml-refused"),
    "many keys for many machines": (
        f"luks_keyfile: [{', '.join(['/k'] * 600)}]\nvms: [{', '.join(f'{{vmdk: /{n}}}' for n in range(90))}]\n",
        "yaml-refused",
    ),
    "a million brackets": ("[" * 60_000, "yaml-refused"),
    "nested mappings": ("a: " + "{a: " * 9000, "yaml-refused"),
    "a huge text": ("# " + "x" * (1 << 20), "file-too-large"),
    "a huge number": ("vmdk: /a\nmemory: " + "9" * 60_000, "value-invalid"),
    "many keys": ("\n".join(f"k{n}: v" for n in range(4000)), "yaml-refused"),
    "control characters": ('vmdk: "/srv/a\\e[2J\\n<2>forged"\n', "yaml-refused"),
    "characters that turn text around": ("vmdk: /srv/\u202egpj.vmdk\n", "yaml-syntax"),
    "a NUL": ("vmdk: /srv/a\0b\n", "yaml-syntax"),
    "a line break of its own kind": ("vmdk: /srv/a\u2028output_dir: /etc\n", "yaml-syntax"),
    "no UTF-8": (b"vmdk: /srv/\xff\xfe\n", "file-not-text"),
    "a name that leads out": ("vmdk: /srv/a\nvm_name: ../../etc/cron.d/x\n", "value-invalid"),
    "a name that is an option": ("vmdk: /srv/a\nvm_name: --config\n", "value-invalid"),
    "an output that leads out": ("vmdk: /srv/a\nto_output: ../../etc/cron.d/-x;y.qcow2\n", "value-invalid"),
    "a number that is a time": ("vmdk: /srv/a\nmemory: 1:30\n", "value-invalid"),
    "a program as libvirt": ("vmdk: /a\nlibvirt_uri: qemu+ext:///system?command=PLACE/evil\n", "value-invalid"),
    "a socket as libvirt": ("vmdk: /a\nlibvirt_uri: qemu+unix:///system?socket=PLACE/evil\n", "value-invalid"),
    "an option as libvirt's host": ("vmdk: /a\nlibvirt_uri: qemu+ssh://-oX/system\n", "value-invalid"),
    "an option behind libvirt's user": ("vmdk: /a\nlibvirt_uri: qemu+ssh://root@-oX/system\n", "value-invalid"),
    "a name that virsh takes for an ID": ("vmdk: /a\nlibvirt_import: true\nvm_name: '7'\n", "value-conflict"),
    "a name that virsh takes for a UUID": (
        "vmdk: /a\nlibvirt_import: true\nvm_name: 6695eb01-f6a4-8304-79aa-97f2502e193f\n",
        "value-conflict",
    ),
    "a name that virsh takes for a UUID, with hyphens elsewhere": (
        "vmdk: /a\nlibvirt_import: true\nvm_name: 66-95eb01f6a4---830479aa97f2502e193f\n",
        "value-conflict",
    ),
    "a host file as libvirt": ("vmdk: /a\nlibvirt_uri: test:///etc/shadow\n", "value-invalid"),
}
