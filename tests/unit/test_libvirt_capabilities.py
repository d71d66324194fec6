"""What libvirt says of a machine type, in the forms that it may have."""

from __future__ import annotations

import pytest

from hyper2kvmd.targets.libvirt.capabilities import DomainCapabilities

FIRMWARE = "<os><enum name='firmware'><value>bios</value><value> efi\n</value></enum></os>"


def of(inside: str) -> DomainCapabilities:
    return DomainCapabilities.of(f"<domainCapabilities>{inside}</domainCapabilities>")


def test_secure_boot_and_tpm() -> None:
    loader = "<os><loader supported='yes'><enum name='secure'><value>yes</value><value>no</value></enum></loader></os>"
    assert of(loader).secure == frozenset({"yes", "no"})
    assert (of("").secure, of("").tpm) == (None, None)


@pytest.mark.parametrize(
    ("tpm", "lacks"),
    [
        ("<tpm supported='yes'><enum name='backendModel'><value>emulator</value></enum></tpm>", False),
        ("<tpm supported='yes'><enum name='backendModel'><value>passthrough</value></enum></tpm>", True),
        ("<tpm supported='yes'><enum name='backendModel'/></tpm>", True),
        ("<tpm supported='no'/>", True),
        ("<tpm supported='yes'/>", False),
        ("", False),
    ],
)
def test_a_tpm_is_only_lacking_if_libvirt_says_so(tpm: str, lacks: bool) -> None:
    assert of(f"<devices>{tpm}</devices>").lacks_tpm is lacks


def test_limit_and_firmware() -> None:
    assert of(f"<vcpu max='240'/>{FIRMWARE}") == DomainCapabilities(240, frozenset({"bios", "efi"}))


@pytest.mark.parametrize("text", ["", "Welcome to kvm01", "Welcome to kvm01\n<domainCapabilities/>", "<domainCapa"])
def test_what_is_no_xml_says_nothing(text: str) -> None:
    assert DomainCapabilities.of(text) == DomainCapabilities()


@pytest.mark.parametrize("most", ["", "many", "0", "-1", "1e3", "9" * 5000, "\u0664"])
def test_an_odd_limit_is_none(most: str) -> None:
    assert of(f"<vcpu max='{most}'/>") == of("<vcpu/>") == of("") == DomainCapabilities()


def test_no_firmware_is_not_the_same_as_an_unknown_one() -> None:
    assert of("<os><enum name='firmware'/></os>").firmware == frozenset()
    assert of("<os/>").firmware is None
