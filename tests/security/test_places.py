"""The folders that a submitter names: what they plant in them, and what they put in their place, while a job runs.

The whole migration is a worker of the service user; where it must be caught between two steps, `publish` and `register`
themselves, whose events say where they are.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed, Unsafe
from hyper2kvmd.host.space import TRIAL, write_a_little
from hyper2kvmd.host.workspace import ensure_private_dir
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.model.orders import Bounds, Order
from hyper2kvmd.progress import (
    AwaitingSpace,
    Ended,
    Event,
    StepStarted,
    read_event,
)
from tests.support.disks import empty_disk, sh
from tests.support.file_systems import file_system
from tests.support.host import USER, service_python
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd
from tests.support.libvirtd import registered, unplug, virsh
from tests.support.publishing import names, run_publish, sparse_image
from tests.support.submitters import GROUP, MASK, NOBODY, OTHER, OWNER, USERS, set_acl

FOREIGN = "of another tenant"
PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, target: path.symlink_to(target),
    "hard link": lambda path, target: path.hardlink_to(target),
}


@pytest.fixture
def victim(service_folder: Path) -> Iterator[Path]:
    """A file of the service's that no job has any business with."""
    path = service_folder / "victim"
    path.write_text(FOREIGN)
    shutil.chown(path, USER, USER)
    yield path
    assert path.read_text() == FOREIGN
    assert path.stat().st_size == len(FOREIGN)


@pytest.fixture
def order(service_folder: Path) -> Order:
    """A small disk with nothing to mount, into a folder that a tenant may change, as may the service."""
    theirs = service_folder / "theirs"
    (theirs / "out").mkdir(parents=True)
    for folder in (theirs, theirs / "out"):
        shutil.chown(folder, "nobody", "nogroup")
        folder.chmod(0o777)
    disk = empty_disk(service_folder / "disk.raw", 1)
    disk.chmod(0o644)
    return Order(
        job_id="7",
        migration=Migration(vmdk=(disk,), vm_name="web01", checksum=True),
        conversion_dir=service_folder / "work",
        output_dir=theirs / "out",
        helper=("none",),
        bounds=Bounds(output_dirs=(theirs,)),
        space_reserve="0",
    )


@contextmanager
def planned(order: Order) -> Iterator[Callable[[], Ended]]:
    """A worker of the service user that has planned, and waits; what is yielded lets it go on to its end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(service_python("hyper2kvmd.worker"), stdin=pipe, stdout=pipe, text=True, cwd="/") as process:
        assert process.stdin is not None and process.stdout is not None
        events = map(read_event, process.stdout)

        def until(kind: type[Event]) -> Event:
            return next(event for event in events if isinstance(event, kind))

        def go_on() -> Ended:
            assert process.stdin is not None
            process.stdin.write("go\nrecorded\n")
            process.stdin.flush()
            last = until(Ended)
            assert isinstance(last, Ended)
            return last

        process.stdin.write(f"{order.model_dump_json()}\n")
        process.stdin.flush()
        until(AwaitingSpace)
        try:
            yield go_on
        finally:
            process.kill()


@pytest.mark.parametrize("kind", PLANTS)
def test_what_lies_under_the_names_of_drafts(order: Order, victim: Path, kind: str) -> None:
    """Of every file that is published, the domain XML too: none is opened, those of this job's number are cleared."""
    for name in ("web01.qcow2", "web01.qcow2.sha256", "web01.report.json", "web01.report.md", "web01.xml"):
        for draft in (f"{name}.partial", f".{name}.7.partial"):
            PLANTS[kind](order.output_dir / draft, victim)
    with planned(order) as go_on:
        ended = go_on()
    assert ended.outcome == "succeeded", ended.problems
    assert (order.output_dir / "web01.xml").read_text().startswith("<domain ")
    assert not list(order.output_dir.glob(".*"))


@pytest.mark.parametrize("above", [False, True], ids=["itself", "a folder above"])
def test_an_output_that_is_swapped_for_a_link_after_the_plan(order: Order, service_folder: Path, above: bool) -> None:
    elsewhere = service_folder / "elsewhere"
    (elsewhere / "out").mkdir(parents=True)
    for folder in (elsewhere, elsewhere / "out"):
        shutil.chown(folder, USER, USER)
    swapped = order.output_dir.parent / "way" if above else order.output_dir
    aim = elsewhere if above else elsewhere / "out"
    if above:
        swapped.mkdir()
        order = order.with_changes(output_dir=order.output_dir.rename(swapped / "out"))
    with planned(order) as go_on:
        swapped.rename(swapped.with_name("before"))
        swapped.symlink_to(aim)
        ended = go_on()
    assert [one.code for one in ended.problems] == ["output-moved"]
    assert list(elsewhere.rglob("*")) == [elsewhere / "out"]


def at(title: str, act: Callable[[], object]) -> Callable[[Event], None]:
    """Do it when the step of that title begins."""

    def hear(event: Event) -> None:
        if isinstance(event, StepStarted) and event.title == title:
            act()

    return hear


@pytest.mark.parametrize("kind", PLANTS)
def test_a_draft_that_is_planted_while_a_job_publishes(tmp_path: Path, kind: str) -> None:
    output, image = tmp_path / "out", sparse_image(tmp_path)
    output.mkdir()
    (tmp_path / "victim").write_text(FOREIGN)
    draft = output / ".web01.raw.sha256.7.partial"
    planting = at("Computing the checksum of web01.raw", lambda: PLANTS[kind](draft, tmp_path / "victim"))
    with pytest.raises(MigrationFailed) as caught:
        run_publish(image, output, checksum=True, emit=planting)
    assert caught.value.code == "output-unwritable"
    assert (tmp_path / "victim").read_text() == FOREIGN
    assert names(output) == set()


@pytest.mark.parametrize("kind", PLANTS)
def test_a_draft_that_is_planted_before_a_copy_onto_another_file_system(tmp_path: Path, kind: str) -> None:
    image = sparse_image(tmp_path)
    with file_system(tmp_path, 200) as place:
        output = place / "out"
        output.mkdir()
        (place / "victim").write_text(FOREIGN)
        planting = at("Publishing web01.raw", lambda: PLANTS[kind](output / ".web01.raw.7.partial", place / "victim"))
        with pytest.raises(MigrationFailed) as caught:
            run_publish(image, output, emit=planting)
        assert caught.value.code == "output-unwritable"
        assert (place / "victim").read_text() == FOREIGN
        assert names(output) == set()


@pytest.mark.parametrize("kind", PLANTS)
def test_a_draft_that_is_swapped_before_it_gets_its_name(tmp_path: Path, kind: str) -> None:
    """What is published is what was made, and the checksum is of that."""
    output, image = tmp_path / "out", sparse_image(tmp_path)
    output.mkdir()
    (tmp_path / "victim").write_text(FOREIGN)

    def swap() -> None:
        (output / ".web01.raw.7.partial").unlink()
        PLANTS[kind](output / ".web01.raw.7.partial", tmp_path / "victim")

    artifact = run_publish(image, output, checksum=True, emit=at("Computing the checksum of web01.raw", swap))
    assert artifact.disks[0].path.lstat().st_ino == image.stat().st_ino
    told = subprocess.run(["sha256sum", image], capture_output=True, text=True, check=True).stdout.split()[0]
    assert artifact.disks[0].sha256 == told


# ---------------------------------------------------------------- where it converts


def own_place(service_folder: Path) -> Path:
    """A conversion directory of the service's, in a folder of the service's."""
    place = service_folder / "shared/conversions"
    place.mkdir(parents=True)
    for folder in (place.parent, place):
        shutil.chown(folder, USER, USER)
    return place


def refused(order: Order, conversion_dir: Path, *prefix: str | Path) -> list[str]:
    return [problem.code for problem in problems(order, conversion_dir, *prefix)]


def problems(order: Order, conversion_dir: Path, *prefix: str | Path) -> tuple[Problem, ...]:
    """What a worker of the service user, run by `prefix`, says to it; it has to leave the place as it is."""
    before = sorted(conversion_dir.parent.rglob("*"))
    order = order.with_changes(conversion_dir=conversion_dir)
    argv = [*prefix, *service_python("hyper2kvmd.worker")]
    text = f"{order.model_dump_json()}\ngo\nrecorded\n"
    done = subprocess.run(argv, input=text, capture_output=True, text=True, cwd="/", check=True)
    ended = read_event(done.stdout.splitlines()[-1])
    assert isinstance(ended, Ended)
    if ended.problems:
        assert sorted(conversion_dir.parent.rglob("*")) == before
    return ended.problems


SWAPPABLE = {
    "theirs above": (True, "nobody", "nogroup", 0o755),
    "theirs above, sticky": (True, "nobody", "nogroup", 0o1777),
    "open above": (True, "root", "root", 0o777),
    "open above to a group": (True, USER, "nogroup", 0o775),
    "open above to an empty group": (True, USER, "staff", 0o775),
    "theirs": (False, "nobody", "nogroup", 0o755),
    "root's": (False, "root", USER, 0o775),
    "open": (False, USER, USER, 0o702),
    "open, sticky": (False, USER, USER, 0o1777),
    "open to a group": (False, USER, "nogroup", 0o770),
}
"""The conversion directory, or the folder above it: whose, of what group, and its mode."""


@pytest.mark.parametrize("name", SWAPPABLE)
def test_a_place_that_somebody_else_can_swap(order: Order, service_folder: Path, name: str) -> None:
    above, owner, group, mode = SWAPPABLE[name]
    place = own_place(service_folder)
    judged = place.parent if above else place
    shutil.chown(judged, owner, group)
    judged.chmod(mode)
    (problem,) = problems(order, place)
    assert problem.code == "directory-shared"
    assert problem.hint.startswith("Use another conversion directory, on a path that only")
    assert str(judged) not in problem.hint


def test_what_an_acl_lets_somebody_swap(order: Order, service_folder: Path) -> None:
    place = own_place(service_folder)
    set_acl(place.parent, (OWNER, 7, -1), (USERS, 7, NOBODY), (GROUP, 5, -1), (MASK, 7, -1), (OTHER, 5, -1))
    assert refused(order, place) == ["directory-shared"]


def test_a_group_with_somebody_else_in_it(order: Order, service_folder: Path) -> None:
    """The service's own group is nobody else, until an operator is made a member."""
    place = own_place(service_folder)
    place.parent.chmod(0o775)
    assert refused(order, place) == []
    groups = service_folder / "group"
    groups.write_text(re.sub(rf"^({USER}:.*:)$", r"\1nobody", Path("/etc/group").read_text(), flags=re.MULTILINE))
    groups.chmod(0o644)
    instead = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', groups)
    assert refused(order, place, *instead) == ["directory-shared"]


def test_a_sticky_folder_keeps_what_is_ours(order: Order, service_folder: Path) -> None:
    """As /tmp does; what somebody else has put there first is theirs."""
    shared = service_folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert refused(order, shared / "ours") == []
    (shared / "theirs").mkdir()
    shutil.chown(shared / "theirs", "nobody")
    assert refused(order, shared / "theirs/conversions") == ["directory-shared"]


def test_a_place_that_is_swapped_for_a_link_after_it_was_looked_up(tmp_path: Path) -> None:
    """Links are followed once, and what they lead to is judged."""
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")
    for path in (tmp_path / "way", tmp_path / "way/conversions"):
        with pytest.raises(MigrationFailed) as caught:
            ensure_private_dir(path)
        assert caught.value.code == "directory-unusable"
    assert not list((tmp_path / "real").iterdir())


@pytest.mark.parametrize(("owner", "code"), [("nobody", ["directory-shared"]), (USER, []), ("root", [])])
def test_a_link_on_the_way_is_its_owners_choice(
    order: Order, service_folder: Path, owner: str, code: list[str]
) -> None:
    """Theirs could lead into any directory of the service's, in which nobody else can swap anything."""
    place = own_place(service_folder)
    way = service_folder / "open/way"
    way.parent.mkdir()
    way.parent.chmod(0o1777)
    way.symlink_to(place)
    entry = pwd.getpwnam(owner)
    os.chown(way, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    assert refused(order, way) == code


# ---------------------------------------------------------------- libvirt


def swapped_xml(uri: str, images: Path, name: str) -> None:
    """Register while the XML in the output directory becomes one with a disk, and a UUID, of its owner's choice."""
    xml, secret = images / f"{name}.xml", images / "secret.raw"
    secret.write_text(FOREIGN)

    def swap() -> None:
        text = xml.read_text().replace(f"{name}.qcow2", secret.name)
        identity = text.partition("<uuid>")[2].partition("</uuid>")[0]
        (images / "draft").write_text(text.replace(identity, str(uuid.uuid4())))
        (images / "draft").rename(xml)

    emit = at(f"Defining {name} in libvirt", swap)
    registered(images, emit=emit, libvirt_import=True, libvirt_uri=uri, vm_name=name, memory=256)


def test_libvirt_does_not_get_a_domain_from_its_folders_owner(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    swapped_xml(uri, images, "swapped")
    shown = virsh(uri, "dumpxml", "--inactive", "swapped")
    assert f"{images}/swapped.qcow2" in shown and "secret.raw" not in shown


def test_libvirt_keeps_no_domain_with_other_disks(libvirt: tuple[str, Path]) -> None:
    uri, images = libvirt
    with suppress(MigrationFailed):
        swapped_xml(uri, images, "kept")
    known = virsh(uri, "list", "--all", "--name").split()
    assert not [name for name in known if "secret.raw" in virsh(uri, "dumpxml", "--inactive", name)]


def test_a_domain_that_is_called_like_anothers_uuid(libvirt: tuple[str, Path]) -> None:
    """virsh takes an argument for an ID or a UUID before it takes it for a name."""
    uri, images = libvirt
    registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="victim", memory=64)
    name = virsh(uri, "domuuid", "victim").strip()
    with suppress(MigrationFailed):
        registered(images, libvirt_import=True, libvirt_uri=uri, vm_name=name, memory=64, job_id="2")
    assert "victim" in virsh(uri, "list", "--all", "--name").split()


def files_open_anywhere() -> set[str]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for descriptor in os.listdir(folder):  # noqa: PTH208 - each may be gone by the time it is read
                with suppress(OSError):
                    found.add(os.readlink(folder / descriptor))  # noqa: PTH115 - the same
    return found


@pytest.mark.parametrize("way", ["owner", "mode", "sticky", "acl", "above"])
def test_a_domain_whose_image_somebody_else_can_swap(libvirt: tuple[str, Path], way: str) -> None:
    """libvirt opens as root what lies there when the domain starts."""
    uri, images = libvirt
    above = images / f"shared-{way}"
    folder = above / "out"
    folder.mkdir(parents=True)
    judged = above if way == "above" else folder
    if way in ("owner", "above"):
        shutil.chown(judged, "nobody")
    elif way == "acl":
        set_acl(judged, (OWNER, 7, -1), (USERS, 7, NOBODY), (GROUP, 5, -1), (MASK, 7, -1), (OTHER, 5, -1))
    else:
        judged.chmod(0o1777 if way == "sticky" else 0o777)
    name = f"swap-{way}"
    with pytest.raises(Unsafe) as caught:
        registered(folder, libvirt_import=True, libvirt_uri=uri, vm_name=name, memory=256)
    assert caught.value.code == "output-shared"
    assert str(judged) in caught.value.message
    assert name not in virsh(uri, "list", "--all", "--name").split()


def test_an_image_that_is_swapped_for_one_with_a_backing_file(libvirt: tuple[str, Path]) -> None:
    """Its domain's disk has no chain, whatever the image comes to say."""
    uri, images = libvirt
    domain = registered(images, libvirt_import=True, libvirt_uri=uri, vm_name="chained", memory=64, vcpus=1)
    unplug(uri, domain)
    image, secret = images / "chained.qcow2", images / "chain.raw"
    secret.write_bytes(FOREIGN.encode().ljust(1 << 20))
    secret.chmod(0o644)
    image.unlink()
    sh("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", secret, "-F", "raw", image, "1M")
    shutil.chown(image, "nobody")
    virsh(uri, "start", "chained")
    try:
        assert secret.name not in virsh(uri, "dumpxml", "chained")
        opened = files_open_anywhere()
        assert str(image) in opened, "the machine runs"
        assert str(secret) not in opened
    finally:
        virsh(uri, "destroy", "chained")


@pytest.mark.parametrize("plant", PLANTS)
def test_what_lies_under_the_name_of_the_trial_file(victim: Path, plant: str) -> None:
    """The daemon tries directories every few seconds, in which others may have write permission."""
    PLANTS[plant](victim.with_name(TRIAL), victim)
    write_a_little(victim.parent)
    assert not os.path.lexists(victim.with_name(TRIAL)) and victim.read_text() == FOREIGN
