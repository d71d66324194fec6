"""The domain XML of each kind of machine, byte for byte. libvirt's opinion of them is in tests/integration."""

from __future__ import annotations

import pytest

from tests.support.libvirt_machines import GOLDEN, MACHINES, xml_of_machine


@pytest.mark.parametrize("name", MACHINES)
def test_a_domain_is_as_its_golden_file(name: str) -> None:
    again = "run: python -m tests.support.libvirt_machines, and read the difference"
    assert (GOLDEN / f"{name}.xml").read_text() == xml_of_machine(name), again


def test_every_golden_file_is_used() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(MACHINES)


def test_emulation_has_no_interfaces_of_hyperv() -> None:
    assert "hyperv" in xml_of_machine("windows").replace("hyper2kvm", "")
    assert "hyperv" not in xml_of_machine("windows", "qemu").replace("hyper2kvm", "")
