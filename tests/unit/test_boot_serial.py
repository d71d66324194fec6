"""The serial console on the kernel lines of every boot loader, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.guest.linux.boot_proof.serial import WORDS, speak_on_serial
from tests.support.guest_on_disk import put, tree_of

GRUB = """set timeout=5
menuentry 'Debian' {
\tsearch --no-floppy --fs-uuid --set=root 1234
\techo 'Loading linux ...'
\tlinux /boot/vmlinuz-6.1 root=UUID=1234 ro quiet console=tty0
\tinitrd /boot/initrd.img-6.1
}
# linux /boot/old root=/dev/sda1
"""
LEGACY = "title CentOS\n\troot (hd0,0)\n\tkernel /vmlinuz-2.6.32 ro root=UUID=1234 rhgb quiet\n\tinitrd /initrd.img\n"
BLS = "title Fedora\nlinux /vmlinuz-6.8\ninitrd /initrd\noptions $kernelopts $tuned_params\n"
EXTLINUX = "LABEL linux\n  LINUX /vmlinuz\n  APPEND root=UUID=1234 quiet  \n  INITRD /initrd\n"


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("/boot/grub/grub.cfg", GRUB, "\tlinux /boot/vmlinuz-6.1 root=UUID=1234 ro quiet console=tty0"),
        ("/boot/grub2/grub.cfg", GRUB.replace("linux /", "linuxefi /"), "linuxefi /boot/vmlinuz-6.1 root=UUID=1234 ro "
         "quiet console=tty0"),
        ("/boot/grub/grub.conf", LEGACY, "\tkernel /vmlinuz-2.6.32 ro root=UUID=1234 rhgb quiet"),
        ("/boot/loader/entries/1.conf", BLS, "options $kernelopts $tuned_params"),
        ("/boot/extlinux/extlinux.conf", EXTLINUX, "APPEND root=UUID=1234 quiet"),
        ("/boot/grub/custom.cfg", "linux /vmlinuz root=UUID=1234 \\\n quiet\n", "linux /vmlinuz root=UUID=1234"),
        ("/boot/grub/grub.cfg", GRUB.replace("\n", "\r\n"), "ro quiet console=tty0"),
    ],
    ids=["grub", "grub-efi", "legacy", "bls", "extlinux", "continued", "dos"],
)  # fmt: skip
def test_the_words_come_last_on_each_kernel_line_and_nowhere_else(
    tmp_path: Path, path: str, text: str, line: str
) -> None:
    put(tmp_path, "etc/os-release", "ID=x\n")
    file = put(tmp_path, path, text)
    assert text.count(line) == 1
    with tree_of(tmp_path) as tree:
        assert speak_on_serial(tree) == (path,)
    assert file.read_bytes() == text.replace(line, f"{line} {WORDS}").encode()


def test_a_guest_without_a_kernel_line_in_reach_stays_as_it_is(tmp_path: Path) -> None:
    file = put(tmp_path, "/boot/grub/grub.cfg", "configfile /elsewhere.cfg\n")
    before = file.stat()
    with tree_of(tmp_path) as tree:
        assert speak_on_serial(tree) == ()
    assert file.stat() == before
