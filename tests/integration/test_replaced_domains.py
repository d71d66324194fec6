"""`overwrite: true` and the domains of a real libvirtd: which ones a job replaces."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.results import Registration
from hyper2kvmd.progress import Event, StepStarted
from hyper2kvmd.targets.libvirt.domain import METADATA
from tests.support.libvirtd import examined, registered, unplug, virsh
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd

UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789a1"


@pytest.fixture
def old(libvirt: tuple[str, Path], request: pytest.FixtureRequest) -> Registration:
    """A domain that an earlier job has defined, with a name of its own."""
    name = f"d{abs(hash(request.node.name)) % 10**8}x"
    return job(libvirt, name, job_id="1", memory=256, vcpus=1)


def job(libvirt: tuple[str, Path], name: str, **keys: Any) -> Registration:
    uri, images = libvirt
    return registered(images, libvirt_import=True, libvirt_uri=uri, vm_name=name, **keys)


def again(libvirt: tuple[str, Path], name: str, **keys: Any) -> Registration:
    return job(libvirt, name, **{"job_id": "2", "memory": 512, "vcpus": 1, "overwrite": True, **keys})


def definition(libvirt: tuple[str, Path], name: str) -> str:
    return virsh(libvirt[0], "dumpxml", "--inactive", name)


def refused(libvirt: tuple[str, Path], name: str, **keys: Any) -> str:
    before = definition(libvirt, name)
    with pytest.raises(MigrationFailed) as caught:
        again(libvirt, name, **keys)
    assert caught.value.code == "domain-exists"
    assert definition(libvirt, name) == before
    return caught.value.message


def test_the_domain_of_an_earlier_job_is_replaced(libvirt: tuple[str, Path], old: Registration) -> None:
    new = again(libvirt, old.name)
    assert new.defined and new.identity != old.identity
    assert virsh(libvirt[0], "domuuid", old.name).strip() == new.identity
    assert ET.fromstring(definition(libvirt, old.name)).findtext("memory") == str(512 * 1024)
    third = again(libvirt, old.name, job_id="3", memory=256)
    assert virsh(libvirt[0], "domuuid", old.name).strip() == third.identity


def test_an_attempt_after_a_crash_replaces_nothing_more(libvirt: tuple[str, Path], old: Registration) -> None:
    assert again(libvirt, old.name) == again(libvirt, old.name)


def test_the_new_domain_keeps_the_uuid_of_the_source(libvirt: tuple[str, Path]) -> None:
    job(libvirt, "identical", job_id="1", machine_had={"uuid": UUID}, firmware="uefi")
    new = again(libvirt, "identical", machine_had={"uuid": UUID}, firmware="uefi")
    assert new.identity == virsh(libvirt[0], "domuuid", "identical").strip() == UUID


def test_without_the_key_it_is_not_replaced(libvirt: tuple[str, Path], old: Registration) -> None:
    (libvirt[1] / f"{old.name}.xml").unlink()
    refused(libvirt, old.name, overwrite=False)


def edited(uri: str, name: str) -> None:
    virsh(uri, "setvcpus", name, "2", "--config", "--maximum")


def unsealed(uri: str, name: str) -> None:
    virsh(uri, "metadata", name, METADATA, "--config", "--remove")


def of_another_owner(uri: str, name: str) -> None:
    found = ET.fromstring(virsh(uri, "dumpxml", "--inactive", name)).find(f"metadata/{{{METADATA}}}migration")
    assert found is not None and found.get("definition")
    element = ET.tostring(ET.Element("migration", {**found.attrib, "owner": "12345"}), encoding="unicode")
    virsh(uri, "metadata", name, METADATA, "--config", "--key", "hyper2kvm", "--set", element)


@pytest.mark.parametrize("change", [edited, unsealed, of_another_owner])
def test_a_domain_that_is_not_as_a_job_of_the_submitter_has_left_it(
    libvirt: tuple[str, Path], old: Registration, change: Callable[[str, str], None]
) -> None:
    change(libvirt[0], old.name)
    assert "is not an unchanged one of an earlier job" in refused(libvirt, old.name)


def test_a_renamed_domain_is_no_longer_ours(libvirt: tuple[str, Path], old: Registration) -> None:
    virsh(libvirt[0], "domrename", old.name, f"{old.name}-new")
    assert "is not an unchanged one" in refused(libvirt, f"{old.name}-new")


def test_a_running_domain_is_not_replaced(libvirt: tuple[str, Path]) -> None:
    uri, _ = libvirt
    old = job(libvirt, "running", job_id="1", memory=256, vcpus=1)
    unplug(uri, old)
    virsh(uri, "start", "running")
    assert "which is running" in refused(libvirt, "running")
    assert virsh(uri, "domstate", "running").strip() == "running"


def test_a_domain_that_is_started_at_the_last_moment_is_not_replaced(libvirt: tuple[str, Path]) -> None:
    uri, _ = libvirt
    old = job(libvirt, "started", job_id="1", memory=256, vcpus=1)

    def start(event: Event) -> None:
        if isinstance(event, StepStarted) and event.title.startswith("Defining"):
            unplug(uri, old)
            virsh(uri, "start", "started")

    with pytest.raises(MigrationFailed) as caught:
        again(libvirt, "started", emit=start)
    assert (caught.value.code, "which is running" in caught.value.message) == ("domain-exists", True)
    assert "started" in virsh(uri, "list", "--persistent", "--name").split()


def test_a_domain_with_a_snapshot_is_not_replaced(libvirt: tuple[str, Path], old: Registration) -> None:
    virsh(libvirt[0], "snapshot-create-as", old.name, "one")
    assert "snapshot" in refused(libvirt, old.name)


def test_a_domain_that_libvirt_rejects_leaves_the_old_one(libvirt: tuple[str, Path], old: Registration) -> None:
    before = definition(libvirt, old.name)
    with pytest.raises(MigrationFailed) as caught:
        again(libvirt, old.name, vcpus=1000)
    assert caught.value.code == "libvirt-define-failed"
    assert sorted(definition(libvirt, old.name).splitlines()) == sorted(before.splitlines())
    assert again(libvirt, old.name).defined, "the old one is still replaceable"


def test_the_plan_refuses_and_warns_as_the_end_would(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = libvirt
    job(libvirt, "planned", job_id="1", machine_had={"uuid": UUID[:-1] + "7"})
    had = {"uuid": UUID[:-1] + "7", "nics": ({"mac": "00:50:56:01:02:03"},)}

    def concerns(name: str) -> list[str]:
        found = examined(uri, tmp_path, had, vm_name=name, overwrite=True)
        return [one for one in found if "the domain planned" in one or "for planned" in one]

    assert concerns("planned") == []
    assert len(concerns("another")) == 2
