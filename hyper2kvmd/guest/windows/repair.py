"""Stages all repairs of a Windows guest, and describes it with them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyper2kvmd import units
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.files.tree import MAX_DIFF, GuestTree, one_line
from hyper2kvmd.guest.windows import first_boot, network
from hyper2kvmd.guest.windows.concerns import concerns_about
from hyper2kvmd.guest.windows.drivers.package import DriverFile
from hyper2kvmd.guest.windows.first_boot import FirstBoot, needs_first_boot
from hyper2kvmd.guest.windows.fixes import FIXES
from hyper2kvmd.guest.windows.fixes.driver_store import store_form
from hyper2kvmd.guest.windows.fixes.first_boot import scripts_are_blocked
from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.hives import STAGED_AS, Hives
from hyper2kvmd.guest.windows.inspect import SYSTEM, WindowsSystem, inspect_windows
from hyper2kvmd.guest.windows.network import Adapter
from hyper2kvmd.guest.windows.registry import RegistryEdit, reg_text
from hyper2kvmd.guest.windows.virtio import choose_devices, choose_extras, find_drivers
from hyper2kvmd.mac import normal_mac
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import Capabilities, Change, DriverFileFact, Guest, Nic, WindowsFacts

MACHINE = "HKEY_LOCAL_MACHINE"
ROOT, CONFIG = "/Windows", "System32/config"
TOOLS = "VMTools"
Edits = Mapping[str, tuple[RegistryEdit, ...]]


@dataclass(frozen=True)
class _Network:
    adapters: tuple[Adapter, ...]
    virtual: tuple[Adapter, ...]
    """NIC teams, virtual switches and VLANs with static addresses."""
    nics: tuple[Nic, ...]


def stage_repairs(disks: GuestDisks, tree: GuestTree, esp: str | None) -> Guest:
    """The guest with the changes that are staged.

    Raises MigrationFailed as `inspect_windows`, `find_drivers` and the fixes do.
    """
    ctx, migration = disks.ctx, disks.migration
    root = tree.canonical(ROOT)
    hives = Hives(tree, f"{root}/{CONFIG}")
    with ctx.step("Inspecting Windows"):
        system = inspect_windows(hives, root)
        cards = _network(disks, hives, system)
    with ctx.step(f"Choosing drivers for {system.product_name}"):
        drivers = find_drivers(system, disks.virtio_win, disks.mandate, migration)
        bus, nic_model = choose_devices(drivers, migration)
    with ctx.step(f"Preparing the repairs of {system.product_name}"):
        case = WindowsCase(system, tree, hives, migration, disks.firmware, drivers, FirstBoot(), esp)
        wanted, told = _first_boot(case, cards)
        first = wanted if migration.win_first_boot == "auto" else FirstBoot()
        case = WindowsCase(system, tree, hives, migration, disks.firmware, drivers, first, esp)
        changes, more = _apply(case)
        hives.stage()
    concerns = (
        *concerns_about(system, hives),
        *drivers.concerns(migration, secure_boot=disks.secure_boot),
        *told,
        *more,
    )
    facts = WindowsFacts(
        build=system.build,
        edition=system.edition,
        version=system.version,
        server=system.server,
        control_set=system.control_set,
        system_root=system.system_root,
        drivers=drivers.facts(),
        agent=_agent_fact(first.agent),
        adapters=tuple(adapter.fact() for adapter in cards.adapters),
        first_boot=first.described(system),
        by_hand=wanted.by_hand(system) if first != wanted or scripts_are_blocked(case) else (),
    )
    return Guest(
        family="windows",
        os_id="windows",
        os_name=system.product_name,
        hostname=system.hostname,
        architecture=system.architecture,
        boot_loader="Windows Boot Manager",
        nics=cards.nics,
        windows=facts,
        capabilities=Capabilities(
            disk_bus=bus,
            nic_model=nic_model,
            rtc=system.rtc,
            extras=choose_extras(drivers, system),
            secure_boot=not drivers.forbid_secure_boot,
        ),
        changes=changes,
        concerns=concerns,
    )


def _network(disks: GuestDisks, hives: Hives, system: WindowsSystem) -> _Network:
    root = hives.read(SYSTEM).root
    control = root.find(system.control_set)
    assert control is not None  # noqa: S101 - `inspect_windows` has read it
    adapters = network.find_adapters(control, control.find("Enum"), disks.nics)
    virtual = network.find_virtual_adapters(control)
    return _Network(adapters, virtual, network.decide_nics(adapters, disks.nics, disks.migration.vm_name))


def _first_boot(case: WindowsCase, cards: _Network) -> tuple[FirstBoot, list[Concern]]:
    migration, told = case.migration, list(_lost_addresses(case, cards))
    agent = case.drivers.agent
    if migration.win_agent and agent is None:
        told.append(
            Concern(
                code="windows-agent-missing",
                message="win_agent is true, and there is no installer of QEMU's guest agent: "
                + ("virtio_win has none" if case.drivers.are_given else "no virtio_win is given"),
                hint="Set virtio_win to a complete virtio-win ISO, or install the agent in the guest",
            )
        )
    first = FirstBoot(
        cards=first_boot.card_settings(cards.adapters, cards.nics, migration),
        installs_drivers=bool(case.drivers.packages) and store_form(case) != "full",
        removes_tools=migration.win_tools == "remove" and case.service(TOOLS) is not None,
        agent=agent if migration.win_agent else None,
    )
    if migration.win_first_boot == "never" and first.steps:
        told.append(first_boot.not_done(first))
    return first, told


def _agent_fact(agent: DriverFile | None) -> DriverFileFact | None:
    return DriverFileFact(name=agent.name, sha256=agent.sha256) if agent is not None else None


def _lost_addresses(case: WindowsCase, cards: _Network) -> Iterator[Concern]:
    """Settings that no card of the new machine gets, and those of `win_net` that fit no card."""
    asked, macs = case.migration.win_net, {nic.mac for nic in cards.nics}
    if asked == "dhcp":
        return
    if asked == "keep":
        yield from (_lost(one) for one in cards.adapters if needs_first_boot(one) and one.mac not in macs)
        yield from map(_unmoved, cards.virtual)
        return
    named = {normal_mac(one.mac) for one in asked}
    written = {one.address.partition("/")[0] for one in asked}
    for adapter in (*cards.adapters, *cards.virtual):
        if needs_first_boot(adapter) and adapter.mac not in named and not _are_written(adapter, written):
            yield _left_out(adapter)
    for one in asked:
        if normal_mac(one.mac) not in macs:
            yield Concern(
                code="windows-address-unused",
                message=f"win_net has an address for {one.mac}, and the new machine has no such card",
                hint=f"Write one of its addresses: {', '.join(sorted(macs))}",
            )


def _are_written(adapter: Adapter, written: set[str]) -> bool:
    found = {address.partition("/")[0] for address in adapter.addresses}
    return bool(found) and found <= written


def _lost(adapter: Adapter) -> Concern:
    no_card = "its MAC address is unknown" if adapter.mac is None else f"none has {adapter.mac}"
    return Concern(
        code="windows-address-lost",
        message=f"the settings of the adapter {one_line(adapter.name)} ({_settings(adapter)}) belong to no card of the "
        f"new machine: {no_card}",
        hint="Write them in win_net with the MAC address of a card, or set them after the first boot",
    )


def _left_out(adapter: Adapter) -> Concern:
    return Concern(
        code="windows-address-lost",
        message=f"win_net has no address for the adapter {one_line(adapter.name)} ({adapter.mac or 'no MAC address'}): "
        f"its settings ({_settings(adapter)}) are given to no card of the new machine",
        hint="Add them to the list in win_net, or set win_net: keep. If nothing uses them, there is nothing to do",
    )


def _settings(adapter: Adapter) -> str:
    return ", ".join(adapter.addresses) or "name servers"


def _unmoved(adapter: Adapter) -> Concern:
    return Concern(
        code="windows-address-lost",
        message=f"the settings of the adapter {one_line(adapter.name)} ({', '.join(adapter.addresses)}) are given to "
        f"no card of the new machine: it is virtual ({one_line(adapter.device)}) and uses the old network cards",
        hint="Set up its team, virtual switch or VLAN again after the first boot, or write the addresses in win_net "
        "with the MAC address of a card",
    )


def _apply(case: WindowsCase) -> tuple[tuple[Change, ...], list[Concern]]:
    changes: list[Change] = []
    concerns: list[Concern] = []
    before: Edits = {}
    for fix in FIXES:
        concerns += fix.apply(case)
        after = case.hives.edits()
        changes += _registry_changes(case, fix, before, after)
        before = after
    files = (change for change in case.tree.changes if change.fix != STAGED_AS)
    return (*changes, *(change.with_changes(path=_shown(case, change.path)) for change in files)), concerns


def _registry_changes(case: WindowsCase, fix: WindowsFix, before: Edits, after: Edits) -> Iterator[Change]:
    for hive, edits in after.items():
        known = set(before.get(hive, ()))
        new = [edit for edit in edits if edit not in known]
        if new:
            diff = reg_text(rf"{MACHINE}\{hive}", new)
            yield Change(
                fix=fix.name,
                path=_shown(case, case.hives.path(hive)),
                summary=f"{fix.summary}: {units.counted(len(new), 'edit')} of the registry",
                diff=diff if len(diff) <= MAX_DIFF else f"{diff[:MAX_DIFF]}\n... (shortened)",
            )


def _shown(case: WindowsCase, path: str) -> str:
    if case.esp is not None and path.startswith(f"{case.esp}/"):
        return "EFI system partition: " + posixpath.join("/", path.removeprefix(case.esp)).replace("/", "\\")
    return case.system.shown(path)
