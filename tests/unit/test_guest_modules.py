from __future__ import annotations

from hyper2kvmd.guest.linux import modules

FOLDER = "/usr/lib/modules/6.1.0"
TEXT = """kernel/a/one.ko.xz: kernel/b/two-half.ko.xz kernel/c/three.ko.xz
kernel/b/two-half.ko.xz: kernel/c/three.ko.xz
/lib/modules/6.1.0/kernel/c/three.ko.xz:
"""


def test_dependencies() -> None:
    found = modules.parse(TEXT, FOLDER)
    assert found.paths["three"] == "kernel/c/three.ko.xz"
    assert found.with_needs(["one", "absent"]) == ["two_half", "three", "one"]
    assert modules.missing(found, ["one"], {"three"}) == ["two_half", "one"]


def test_index_names_modules_as_they_lie_there() -> None:
    present = {"one": "kernel/a/one.ko.xz", "two_half": "kernel/b/two-half.ko", "three": "updates/three.ko"}
    text, binary = modules.index(modules.parse(TEXT, FOLDER), present)
    assert text.decode() == (
        "kernel/a/one.ko.xz: kernel/b/two-half.ko updates/three.ko\n"
        "updates/three.ko:\n"
        "kernel/b/two-half.ko: updates/three.ko\n"
    )
    assert binary.startswith(b"\xb0\x07\xf4\x57\x00\x02\x00\x01")


def test_builtins() -> None:
    assert modules.builtins("kernel/drivers/block/virtio_blk.ko\nkernel/x/a-b.ko\n") == {"virtio_blk", "a_b"}
