"""What stages work with, for tests that run one of them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.hardware import DEFAULT_MACHINE, DEFAULT_MEMORY, DEFAULT_VCPUS
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.disks import Layout, SourceDisk
from hyper2kvmd.model.machine import Firmware, Hardware, HardwareNic, Machine, MachineDisk, Plan
from hyper2kvmd.model.orders import Order, SpaceNeeded
from hyper2kvmd.progress import Context, Event
from hyper2kvmd.stages.bench import Bench


def unheard(_event: Event) -> None:
    pass


def admit_nothing(_needed: SpaceNeeded) -> None:
    raise AssertionError("this stage reserves no space")


@contextmanager
def bench_for(order: Order, folder: Path, emit: Callable[[Event], None] = unheard) -> Iterator[Bench]:
    with Sources(folder, Mandate.of(order)) as sources:
        yield Bench(order, folder, Context(emit, admit_nothing), sources)


def plan_for(disks: tuple[SourceDisk, ...], layout: Layout, firmware: Firmware = "bios") -> Plan:
    machine = Machine(disks=tuple(MachineDisk(at=disk.at) for disk in disks))
    return Plan(machine=machine, disks=disks, layout=layout, firmware=firmware, needed_bytes=1)


NOTHING_PLANNED = plan_for((), Layout(tables=()))


def hardware_for(firmware: Firmware, *macs: str, memory: int = DEFAULT_MEMORY) -> Hardware:
    return Hardware(
        firmware=firmware,
        machine=DEFAULT_MACHINE,
        memory=memory,
        vcpus=DEFAULT_VCPUS,
        nics=tuple(HardwareNic(mac=mac) for mac in macs or ("52:54:00:00:00:01",)),
    )
