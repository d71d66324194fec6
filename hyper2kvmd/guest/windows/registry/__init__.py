"""Registry hives of Windows: read, with their transaction logs applied, and edited in memory.

Every offset and size of a hive or a log is checked before use, and only MigrationFailed leaves this package: with
`registry-damaged`, `registry-log-unfit` or `registry-edit-invalid`. Which values are edited belongs to the fixes.
Source: Windows registry file format specification by M. Suhanov, sections "Format of primary files", "Format of
transaction log files" and "Dirty state of a hive".
"""

from hyper2kvmd.guest.windows.registry.changes import EditKind, RegistryEdit
from hyper2kvmd.guest.windows.registry.editor import Editor
from hyper2kvmd.guest.windows.registry.hive import Hive, Key
from hyper2kvmd.guest.windows.registry.refusals import RegistryDamaged, RegistryEditInvalid, RegistryLogUnfit
from hyper2kvmd.guest.windows.registry.reg_text import reg_text
from hyper2kvmd.guest.windows.registry.value import Value

__all__ = [
    "EditKind",
    "Editor",
    "Hive",
    "Key",
    "RegistryDamaged",
    "RegistryEdit",
    "RegistryEditInvalid",
    "RegistryLogUnfit",
    "Value",
    "reg_text",
]
