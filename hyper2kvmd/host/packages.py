"""How this host's distribution installs a package."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

RPM_FAMILIES = {"rhel", "fedora", "centos", "suse"}


@dataclass(frozen=True)
class DistroPackage:
    """The names of one package."""

    debian: str
    rpm: str

    @property
    def install_line(self) -> str:
        """A command for this host, or one for each family if the host is of neither."""
        debian, rpm = f"`apt install {self.debian}`", f"`dnf install {self.rpm}`"
        match family():
            case "debian":
                return debian
            case "rpm":
                return rpm
            case _:
                return f"{debian} (Debian, Ubuntu) or {rpm} (RHEL, Fedora)"


@functools.cache
def family() -> str:
    """`debian`, `rpm`, or empty for another one."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if "debian" in names:
        return "debian"
    return "rpm" if names & RPM_FAMILIES else ""
