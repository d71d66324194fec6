"""The output of a booting guest on its serial console, and its meaning.

Defines the texts that are evidence and those that are dead ends, for all guests: one whose system was not recognised is
judged by them too. The guest writes them, so no text is trusted to be short, printable or new. No pattern repeats
without a bound after a place where it may begin, because a hostile line would make the search quadratic.
"""

from __future__ import annotations

import re
import time
from typing import Literal

from hyper2kvmd.model.frozen import Frozen

CONSOLE_KEPT = 1 << 18
"""Characters: four times the output of a verbose boot."""
TAIL_LINES = 12
LINE_KEPT = 300

ESCAPES = re.compile(
    r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[a-zA-Z=>]"
    r"|[\x00-\x06\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]"
)
"""An escape sequence may come in two pieces, so its first character stays until the rest arrives."""
LOGIN = re.compile(r"^(\S{1,64}) login: ?", re.IGNORECASE | re.MULTILINE)
REACHED = re.compile(
    r"Reached target.{0,200}?((?:Multi-User System|Graphical Interface|(?:multi-user|graphical)\.target)\b)"
    r"|(Cloud-init v\S* \S+ finished)"
    r"|^INIT: Entering (runlevel: [2-5])"
    r"|^[ \t]{0,8}\* Starting (local) \.\.\."
    r"|(Entering non-interactive startup)",
    re.MULTILINE,
)
"""The last messages of systemd, cloud-init, sysvinit, OpenRC and Red Hat's old rc during a boot. Emergency mode
prints none of them; it does reach `Login Prompts`."""
KERNEL = re.compile(r"Linux version (\S+)")
SPOKE = re.compile(r"Linux version|^\[ *\d+\.\d+\]|systemd\[1\]|^Welcome to (?!GRUB)|Reached target", re.MULTILINE)
COMPLAINT = re.compile(
    r"\[(?:FAILED|DEPEND| TIME )\] .+|ALERT! .+|^.{0,80}Cannot open root device.+|^dracut.{0,80}Warning: .+|^error: .+",
    re.MULTILINE,
)
"""Messages of systemd, initramfs-tools, the kernel, dracut and GRUB about failures."""
COMPLAINTS_KEPT = 6
FAILED_UNIT = re.compile(r"\[FAILED\] Failed to (?:start|mount|activate) (.{1,200}?)\.?[ \t]{0,80}$", re.MULTILINE)


class Sign(Frozen):
    """A text on a console that shows that the boot cannot succeed."""

    pattern: str
    fact: str
    hint: str
    code: Literal["boot-failed", "boot-unproven"] = "boot-failed"


NO_ROOT = "Let the repair add virtio drivers and stable names (regen_initramfs: true, fstab_mode: stabilize-all)"
NO_LOADER = "Check that firmware and boot loader match (uefi: true or false), and that this is the boot disk"
READ = "Read the console lines above"
SIGNS = (
    Sign(
        pattern=r"^\(initramfs\)|initramfs emergency recovery shell|^\[rootfs [^\]\n]{0,80}\]# |-- exiting to /bin/sh",
        fact="it stopped in the initramfs shell: no root file system",
        hint=NO_ROOT,
    ),
    Sign(
        pattern=r"^dracut:/#|Entering emergency mode|^dracut: (?:FATAL|Refusing to continue)",
        fact="it stopped in dracut's emergency shell",
        hint=NO_ROOT,
    ),
    Sign(pattern=r"Kernel panic - not syncing", fact="its kernel panicked", hint=READ),
    Sign(
        pattern=r"You are in emergency mode|Welcome to emergency mode|Give root password for"
        r"|Cannot open access to console|Dropping you to a shell; the system will reboot"
        r"|A maintenance shell will now be started",
        fact="it stopped in emergency mode",
        hint="Read the console lines above. A mount in its fstab most likely names a missing disk",
    ),
    Sign(pattern=r"Freezing execution", fact="its init froze", hint=READ),
    Sign(
        pattern=r"grub(?: rescue)?>|^ *Minimal BASH-like line editing",
        fact="it stopped in GRUB's own shell",
        hint=NO_LOADER,
    ),
    Sign(
        pattern=r"No bootable device|Boot failed: not a bootable disk|No bootable option|^Shell>",
        fact="its firmware found nothing to boot",
        hint=NO_LOADER,
    ),
    Sign(
        pattern=r"Please (?:enter|unlock)\b.{0,200}\b(?:passphrase|disk)|Enter passphrase for ",
        fact="it found its encrypted disk and waits for the passphrase",
        hint="Set verify: content, then boot the guest by hand and type the passphrase",
        code="boot-unproven",
    ),
)


class Console:
    """The guest's output so far. Only text that it has not printed before counts as progress."""

    def __init__(self) -> None:
        self.received = 0
        self.heard = time.monotonic()
        """When it last printed something new."""
        self._text = ""
        self._known: set[str] = set()

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        start = self._text.rfind("\n") + 1
        self._text += ESCAPES.sub("", data.decode(errors="replace").replace("\r", "\n"))
        for line in self._text[start:].splitlines():
            shape = re.sub(r"[\d* ]+", "", line)
            if shape and shape not in self._known:
                self._known.add(shape)
                self.heard = time.monotonic()
        self._text = self._text[-CONSOLE_KEPT:]

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self._text)

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.heard

    @property
    def tail(self) -> tuple[str, ...]:
        lines = [line.strip() for line in self.text.splitlines()[-10 * TAIL_LINES :] if line.strip()]
        return tuple(_plain(line) for line in lines[-TAIL_LINES:])

    def dead_end(self) -> Sign | None:
        text = self.text
        return next((sign for sign in SIGNS if re.search(sign.pattern, text, re.MULTILINE)), None)

    def complaints(self) -> tuple[str, ...]:
        """Its first messages about missing or failed things."""
        return tuple(dict.fromkeys(map(_plain, COMPLAINT.findall(self.text))))[:COMPLAINTS_KEPT]

    def failed_units(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(_plain, FAILED_UNIT.findall(self.text))))

    def evidence(self) -> tuple[str, ...]:
        """The evidence of its boot, in words."""
        text, found = self.text, []
        if kernel := KERNEL.search(text):
            found.append(f"its kernel {kernel[1]} started from a virtio disk")
        reached = dict.fromkeys(next(filter(None, match.groups())) for match in REACHED.finditer(text))
        found += [f"on its serial console it reached: {name}" for name in reached]
        if login := LOGIN.search(text):
            found.append(f"{login[1]} asked for a login on its serial console")
        return tuple(map(_plain, found))


def _plain(line: str) -> str:
    return "".join(character for character in line if character.isprintable())[:LINE_KEPT]
