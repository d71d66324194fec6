"""Driver packages as Windows records installed ones: files, services, and entries in its driver database.

So Windows starts from a disk on virtio or virtio-scsi, and installs the other devices by itself when it finds them.
Both drivers for disks are recorded: the bus can be changed later. `drivers/store.py` decides what the records are.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.guest.windows.drivers.package import DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import DATABASE_FROM
from hyper2kvmd.guest.windows.drivers.store import (
    Form,
    StorePlace,
    numbers_of,
    oem_map,
    published_name,
    records_of,
)
from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.inspect import DRIVERS, SYSTEM
from hyper2kvmd.guest.windows.registry import Value
from hyper2kvmd.model.concerns import Concern

DATABASE, MAP = "DriverDatabase", "OemInfMap"
INFS = rf"{DATABASE}\DriverInfFiles"


def store_form(case: WindowsCase) -> Form:
    if case.system.build < DATABASE_FROM:
        return "critical"
    return case.migration.win_drivers


def apply(case: WindowsCase) -> list[Concern]:
    """Raises MigrationFailed as the editor of the registry and `GuestTree.write_bytes` do."""
    form, numbers = store_form(case), list[int]()
    known = {name.lower() for name in case.tree.listdir(f"{case.system.root}/INF")}
    active = dict(_active(case)) if form == "full" else {}
    mapped = _mapped(case)
    for package in case.drivers.packages:
        name = published_name(package, known, active, mapped)
        known.add(name)
        place = StorePlace(name, case.system.control_set, form, has_drivers_hive=case.hives.has(DRIVERS))
        _write(case, package, place)
        numbers.extend(numbers_of([name]))
    if form == "full" and numbers:
        _note_numbers(case, numbers)
    return []


def _active(case: WindowsCase) -> Iterator[tuple[str, str]]:
    """The folder in the driver store for each INF in the database."""
    for hive in (SYSTEM, *((DRIVERS,) if case.hives.has(DRIVERS) else ())):
        infs = case.hives.read(hive).find(INFS)
        for key in infs.subkeys() if infs else ():
            value = key.value("Active")
            if value is not None:
                yield key.name, value.text()


def _write(case: WindowsCase, package: DriverPackage, place: StorePlace) -> None:
    records = records_of(package, place)
    signed = f"signed by {package.signer}" if package.signer else "not signed"
    for file in records.files:
        case.write(
            f"{case.system.root}/{file.path}", file.data, FIX.name, f"{package.name} {package.version}, {signed}"
        )
    for key in records.keys:
        case.hives.edit(key.hive).create(key.path)
    for one in records.values:
        case.hives.edit(one.hive).set(one.path, Value(one.name, one.type, one.data))


def _note_numbers(case: WindowsCase, numbers: list[int]) -> None:
    """Which names `oemN.inf` are taken: Windows has one such map for the packages of both hives."""
    after = oem_map(_mapped(case), numbers)
    case.hives.edit(SYSTEM).set(DATABASE, Value.binary(MAP, after))


def _mapped(case: WindowsCase) -> bytes | None:
    key = case.hives.read(SYSTEM).find(DATABASE)
    value = key.value(MAP) if key else None
    return value.data if value else None


FIX = WindowsFix("driver-store", "virtio drivers are installed", apply=apply)
