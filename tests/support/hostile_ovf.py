"""OVF descriptors made to burn time and memory, or to reach other files. Each has the code with which it is refused."""

from __future__ import annotations

from tests.support.ovf_texts import DISK, FILE, System, controller, cpu, device, disk, envelope, memory, nic

PARTS = {"id_": "f1", "href": "a.vmdk"}
MILLION = 10**6


def with_doctype(subset: str, inside: str = "") -> bytes:
    return envelope(System(), inside, declaration=f"<!DOCTYPE Envelope [{subset}]>")


def laughs() -> bytes:
    lines = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)]
    return with_doctype(f'<!ENTITY e0 "ha">{"".join(lines)}', "<a>&e11;</a>")


def quadratic() -> bytes:
    return with_doctype(f'<!ENTITY e "{"x" * 100_000}">', f"<a>{'&e;' * 100_000}</a>")


def href(text: str) -> bytes:
    return envelope(files=[{**FILE, "href": text}])


def quantity(item: str) -> bytes:
    return envelope(System((*(cpu(), memory(item)), controller("3"), disk("4"))))


def unit(text: str) -> bytes:
    return envelope(disks=[{"diskId": "d1", "capacity": "1", "capacityAllocationUnits": text}])


def circle(length: int) -> bytes:
    numbers = range(1, length + 1)
    files = [{"id_": f"f{n}", "href": f"{n}.vmdk"} for n in numbers]
    disks = [{"diskId": f"d{n}", "fileRef": f"f{n}", "parentRef": f"d{n % length + 1}"} for n in numbers]
    return envelope(files=files, disks=disks)


def attributes_without_end() -> str:
    """As many as fit into one tag."""
    return "".join(f" a{number}='1'" for number in range(80_000))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "billion laughs": (laughs(), "ovf-doctype"),
    "quadratic growth": (quadratic(), "ovf-doctype"),
    "an external entity": (with_doctype('<!ENTITY e SYSTEM "file:///etc/shadow">', "<a>&e;</a>"), "ovf-doctype"),
    "an external parameter entity": (with_doctype('<!ENTITY % e SYSTEM "http://127.0.0.1/">%e;'), "ovf-doctype"),
    "an external DTD": (envelope(declaration='<!DOCTYPE Envelope SYSTEM "http://127.0.0.1/x">'), "ovf-doctype"),
    "nested collections": (
        envelope("<VirtualSystemCollection>" * 5000 + "</VirtualSystemCollection>" * 5000),
        "ovf-too-complex",
    ),
    "elements without end": (envelope("<a/>" * (2 * MILLION)), "ovf-too-complex"),
    "attributes without end": (envelope(f"<a{attributes_without_end()}/>"), "ovf-too-complex"),
    "a comment without end": (envelope(f"<!--{'x' * (15 * MILLION)}-->"), "ovf-too-complex"),
    "a text without end": (envelope(f"<a>{'x' * (17 * MILLION)}</a>"), "ovf-too-complex"),
    "a number without end": (quantity("9" * (2 * MILLION)), "ovf-value-unclear"),
    "a power without end": (unit("byte * 9999999999999^999999999"), "ovf-disk-unclear"),
    "parts without end": (envelope(files=[{**PARTS, "chunkSize": "1", "size": "9" * 17}]), "ovf-disk-unsupported"),
    "a parent of itself": (circle(1), "ovf-disk-unclear"),
    "parents in a circle": (circle(3), "ovf-disk-unclear"),
    "a thousand parents": (circle(1000), "ovf-disk-unclear"),
    "cards without end": (envelope(System((nic("5"),) * 10_000)), "ovf-too-complex"),
    "drives without end": (envelope(System((device("15"),) * 10_000)), "ovf-too-complex"),
    "a thousand disks": (
        envelope(
            System((cpu(), memory(), controller("3"), *(disk(str(n), f"ovf:/disk/d{n}") for n in range(9, 1009)))),
            disks=[{**DISK, "diskId": f"d{n}"} for n in range(9, 1009)],
        ),
        "disks-too-many",
    ),
    "a folder above": (href("../secret.vmdk"), "ovf-href-unsafe"),
    "a folder above, escaped": (href("%2e%2e%2fsecret.vmdk"), "ovf-href-unsafe"),
    "an absolute path": (href("/etc/shadow"), "ovf-href-unsafe"),
    "an address": (href("http://127.0.0.1:1/secret.vmdk"), "ovf-href-unsafe"),
    "another line": (href("a%0a<2>forged.vmdk"), "ovf-href-unsafe"),
    "a link": (href("link.vmdk"), "source-unsafe"),
}
