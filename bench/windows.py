"""The Windows guest of `python -m bench.repair`: a large registry with logs, and many files of drivers."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tests.guests.guest import cache, finished_at_once, locked
from tests.guests.windows.disk import windows_disk
from tests.guests.windows.driver_disc import driver_folder
from tests.guests.windows.files import CONFIG
from tests.guests.windows.hives import merge
from tests.guests.windows.machine import Windows
from tests.guests.windows.registry_text import Values, binary, dword, render
from tests.guests.windows.releases import SERVER_2022
from tests.guests.windows.states import dirty_registry

HIVE_BYTES = 12 << 20
"""At least."""
FILES = 60
"""Of the driver packages, at least."""
BUSES, MODELS, DEVICES = 30, 30, 32
"""Of keys of devices: a server has so many that was in use for years. hivex leaves much room unused in long lists."""
EXTRA_FILES, EXTRA_BYTES = 40, 100_000


def large_windows() -> tuple[Path, Path]:
    """A raw disk and a folder with drivers; made once."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    folder = cache() / f"windows-bench-{key}"
    with locked(cache() / "lock-windows-bench"):
        if not folder.exists():
            with finished_at_once(folder) as unfinished:
                _fill(unfinished)
    return folder / "disk.raw", folder / "drivers"


def _fill(folder: Path) -> None:
    disk = windows_disk(folder / "disk.raw", Windows(release=SERVER_2022))
    disk.change(_enlarge)
    steps = [render([(f"ControlSet001\\Services\\Added{number}", {"Start": dword(4)})]) for number in range(20)]
    dirty_registry(*steps)(disk)
    driver_folder(folder / "drivers", "attested", (SERVER_2022.folder,))
    _add_files(folder / "drivers" / "NetKVM" / SERVER_2022.folder / "amd64")


def _enlarge(files: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        hive = Path(name) / "SYSTEM"
        hive.write_bytes((files / CONFIG / "SYSTEM").read_bytes())
        merge(hive, render(_devices()))
        data = hive.read_bytes()
    if len(data) < HIVE_BYTES:
        raise SystemExit(f"bench: the registry has only {len(data)} bytes")
    (files / CONFIG / "SYSTEM").write_bytes(data)


def _devices() -> Iterator[tuple[str, Values]]:
    values = {"ConfigFlags": dword(0), "Security": binary(bytes(range(120)))}
    for bus, model, device in product(range(BUSES), range(MODELS), range(DEVICES)):
        yield f"ControlSet001\\Enum\\BUS{bus:02}\\MODEL{model:02}\\{device:04}", values


def _add_files(package: Path) -> None:
    """Files that the INF copies besides the driver."""
    names = [f"netkvm{number:02}.dll" for number in range(EXTRA_FILES)]
    for name in names:
        (package / name).write_bytes(hashlib.shake_256(name.encode()).digest(EXTRA_BYTES))
    inf = package / "netkvm.inf"
    text = inf.read_text()
    text = re.sub(r"(?m)^(\[SourceDisksFiles\].*)$", "\\1\n" + "\n".join(f"{name} = 1,," for name in names), text)
    text = re.sub(r"(?m)^(netkvm\.sys,,,2.*)$", "\\1\n" + "\n".join(f"{name},,,2" for name in names), text)
    inf.write_text(text)
