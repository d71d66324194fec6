"""The failures of registry hives, with their remedies."""

from __future__ import annotations

from hyper2kvmd.errors import MigrationFailed


class RegistryDamaged(MigrationFailed):
    """A hive that cannot be read, or only in part."""


class RegistryLogUnfit(MigrationFailed):
    """A hive that was not written completely, and whose transaction logs cannot complete it."""


class RegistryEditInvalid(MigrationFailed):
    """A key or a value that a hive cannot hold."""


def damaged(hive: str, fact: str) -> RegistryDamaged:
    return RegistryDamaged(
        "registry-damaged",
        f"registry hive {hive}: {fact}",
        hint="Start Windows on the source, check that it runs, shut it down and export the machine again. "
        "If it does not start, restore the hive from a backup first",
    )


def unfit(hive: str, fact: str) -> RegistryLogUnfit:
    return RegistryLogUnfit(
        "registry-log-unfit",
        f"registry hive {hive}: {fact}",
        hint="Start Windows on the source, shut it down with `shutdown /s /t 0`, wait until it is off, and export the "
        "machine again",
    )


def invalid_edit(hive: str, fact: str) -> RegistryEditInvalid:
    return RegistryEditInvalid(
        "registry-edit-invalid",
        f"registry hive {hive}: {fact}",
        hint="If a driver's INF names that key or value, use another release of virtio_win; otherwise report this as "
        "a bug",
    )
