"""The house's shape: imports point down only, and processes start in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import hyper2kvmd

HOUSE = Path(hyper2kvmd.__file__).parent
FLOORS = (
    {"cli"},
    {"client"},
    {"daemon"},
    {"worker"},
    {"stages"},
    {"stages.bench"},
    {"proof", "targets"},
    {"guest.choice"},
    {"guest.linux", "guest.windows", "guest.data_disks"},
    {"guest.family", "guest.nics"},
    {"guest.files"},
    {"guest.mounts"},
    {"machines"},
    {"disk.sources"},
    {"disk.engine", "disk.qemu"},
    {"disk.images"},
    {"disk"},
    {"volumes"},
    {"host"},
    {"base"},
    {"model"},
    {"errors"},
)
"""From the top down: a room may import rooms below it, and its own. A name with a dot is a room in a room. `base` is
every other module at the top level (spec, config, hardware, progress and what they are made of)."""
APART = {
    "volumes": {"host", "base", "model", "errors"},
    "host": {"base", "model", "errors"},
    "disk.engine": {"disk", "host", "base", "model", "errors"},
    "machines": {"disk.sources", "disk", "host", "base", "model", "errors"},
    "proof": {"guest.choice", "guest.family", "guest.mounts", "disk.qemu", "host", "base", "model", "errors"},
    "guest.windows": {
        "guest.family",
        "guest.nics",
        "guest.files",
        "guest.mounts",
        "disk",
        "volumes",
        "host",
        "base",
        "model",
        "errors",
    },
}
"""Rooms that may import less than all below them."""
STORE_USERS = {"cli", "daemon", "jobs"}
STANDALONE = {"helper", "confine", "keeper", "volumes.ntfs.child"}
"""Run alone, as root, before an exec or confined: the standard library and nothing of ours."""
STARTERS = {
    "os": {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "startfile"},
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"fork", "spawn"},
}
STARTER_MODULES = {"multiprocessing", "pty", "pexpect"}
MAY_START = {"host/run.py", "helper/helper.py"}
MAY_EXEC = {*MAY_START, "host/confine.py", "host/keeper.py", "cli/ssh.py"}
RUN_NOT_IMPORTED = (".__main__", ".migrations.env")
"""A program, and what Alembic runs."""
MAY_FORK = {*MAY_START, "host/keeper.py", "cli/daemon.py"}
"""Going to the background starts no program."""


def room(module: str) -> str:
    """The room that `hyper2kvmd.a.b` belongs to."""
    parts = module.split(".")
    if len(parts) < 2:
        return "errors"  # the package itself: a version, below everything
    if module.startswith("hyper2kvmd.host.confine"):
        return "confine"
    if module == "hyper2kvmd.host.keeper":
        return "keeper"
    if module == "hyper2kvmd.volumes.ntfs.child":
        return "volumes.ntfs.child"
    rooms = {*(name for floor in FLOORS for name in floor), "jobs", *STANDALONE}
    inner = ".".join(parts[1:3])
    return inner if inner in rooms else parts[1] if parts[1] in rooms else "base"


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, wherever in the file; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "hyper2kvmd":
                yield from (f"hyper2kvmd.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield node.module or ""


def wrong_imports(module: str, source: str) -> list[str]:
    """Imports in `module` that point up, or into a room that is not open to it."""
    here = room(module)
    wrong = []
    for imported in imports(ast.parse(source)):
        ours = imported.split(".")[0] == "hyper2kvmd"
        if here in STANDALONE:
            if ours or imported.split(".")[0] not in sys.stdlib_module_names:
                wrong.append(imported)
        elif ours and not allowed(here, room(imported)):
            wrong.append(imported)
    return wrong


def allowed(here: str, there: str) -> bool:
    if there == "jobs":
        return here in STORE_USERS
    if there == "helper":
        return False
    if here == "jobs":
        return there in {"base", "model", "errors", "host"}
    if there == "confine":
        there = "host"
    if here == "stages" == there:
        return False
    if here in APART:
        return here == there or there in APART[here]
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return here == there or floor[here] < floor[there]


def process_starts(source: str) -> list[str]:
    """Calls and imports that start a process."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            owner, name = node.func.value.id, node.func.attr
            if name in STARTERS.get(owner, ()) or (owner == "os" and name.startswith(("exec", "spawn"))):
                found.append(f"{owner}.{name}")
        elif isinstance(node, ast.ImportFrom):
            names = STARTERS.get(node.module or "", set())
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name in names]
            found += [alias.name for alias in node.names if alias.name == "ProcessPoolExecutor"]
    found += [name for name in imports(ast.parse(source)) if name.split(".")[0] in STARTER_MODULES]
    return found


def modules() -> list[Path]:
    return sorted(path.relative_to(HOUSE) for path in HOUSE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_down(path: Path) -> None:
    name = ".".join(("hyper2kvmd", *path.with_suffix("").parts)).removesuffix(".__init__")
    assert wrong_imports(name, (HOUSE / path).read_text()) == []


@pytest.mark.parametrize("path", modules(), ids=str)
def test_processes_start_in_one_place(path: Path) -> None:
    if str(path) in MAY_START:
        return
    starts = process_starts((HOUSE / path).read_text())
    if str(path) in MAY_EXEC:
        starts = [start for start in starts if not start.startswith("os.exec")]
    if str(path) in MAY_FORK:
        starts = [start for start in starts if start != "os.fork"]
    assert starts == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("hyper2kvmd.model", "from hyper2kvmd.host.run import run"),
        ("hyper2kvmd.host.run", "from hyper2kvmd import disk"),
        ("hyper2kvmd.disk.qemu", "import hyper2kvmd.guest.linux.inspect"),
        ("hyper2kvmd.guest.linux.fixes.fstab", "from hyper2kvmd.stages.plan import plan"),
        ("hyper2kvmd.stages.plan", "def f():\n    from hyper2kvmd import worker"),
        ("hyper2kvmd.stages.plan", "from hyper2kvmd.stages.register import register"),
        ("hyper2kvmd.stages.bench", "from hyper2kvmd.stages.plan import plan"),
        ("hyper2kvmd.machines.vmx", "from hyper2kvmd.targets.target import Target"),
        ("hyper2kvmd.proof.boot", "from hyper2kvmd.guest.linux.root_search import find_root"),
        ("hyper2kvmd.proof.console", "from hyper2kvmd.guest.windows.family import Windows"),
        ("hyper2kvmd.proof.machine", "from hyper2kvmd.guest.data_disks import WithoutSystem"),
        ("hyper2kvmd.guest.windows.family", "from hyper2kvmd.guest.linux.boot_proof.serial import WORDS"),
        ("hyper2kvmd.disk.engine.copy", "from hyper2kvmd.disk.sources.foreign import ForeignSource"),
        ("hyper2kvmd.disk.engine.copy", "from hyper2kvmd.disk.images.raw import RawWriter"),
        ("hyper2kvmd.worker", "from hyper2kvmd.jobs.store import Store"),
        ("hyper2kvmd.worker", "from hyper2kvmd.daemon import spool"),
        ("hyper2kvmd.daemon.spool", "from hyper2kvmd.cli.ctl import main"),
        ("hyper2kvmd.daemon.control", "from hyper2kvmd.client import Client"),
        ("hyper2kvmd.client.client", "from hyper2kvmd.jobs.store import Store"),
        ("hyper2kvmd.jobs.store", "from hyper2kvmd.stages.plan import plan"),
        ("hyper2kvmd.stages.repair", "from hyper2kvmd.helper.helper import main"),
        ("hyper2kvmd.helper.helper", "from hyper2kvmd.errors import Failure"),
        ("hyper2kvmd.helper.helper", "import yaml"),
        ("hyper2kvmd.host.confine", "import hyper2kvmd"),
        ("hyper2kvmd.volumes.ntfs.child", "from hyper2kvmd.volumes.ntfs import changes"),
        ("hyper2kvmd.volumes.ntfs.child", "import yaml"),
        ("hyper2kvmd.volumes.ntfs.volume", "from hyper2kvmd.guest.mounts.access import Access"),
    ],
)
def test_an_import_that_points_up_is_seen(module: str, line: str) -> None:
    assert len(wrong_imports(module, line)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("hyper2kvmd.cli.daemon", "from hyper2kvmd.daemon.service import serve"),
        ("hyper2kvmd.cli.ctl", "from hyper2kvmd.jobs.store import Store"),
        ("hyper2kvmd.worker", "from hyper2kvmd.stages.plan import plan"),
        ("hyper2kvmd.guest.mounts.access", "from hyper2kvmd.host import run"),
        ("hyper2kvmd.host.run", "from hyper2kvmd.host.confine import landlock_abi"),
        ("hyper2kvmd.daemon.pages.server", "from hyper2kvmd import __version__"),
        ("hyper2kvmd.helper.helper", "import ctypes, os"),
    ],
)
def test_an_import_that_points_down_is_left_alone(module: str, line: str) -> None:
    assert wrong_imports(module, line) == []


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess\nsubprocess.run(['id'])",
        "from subprocess import Popen",
        "import os\nif os.fork() == 0: pass",
        "import os\nos.execv('/bin/sh', ['sh'])",
        "import os\nos.system('id')",
        "import asyncio\nasync def f(): await asyncio.create_subprocess_exec('id')",
        "import multiprocessing",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)
def test_a_started_process_is_seen(line: str) -> None:
    assert len(process_starts(line)) == 1


def test_naming_a_process_type_is_no_start() -> None:
    assert process_starts("import subprocess\ndef f(p: subprocess.Popen[bytes]) -> None: p.wait(subprocess.PIPE)") == []


def test_a_class_has_a_name_of_its_own() -> None:
    """The root helper imports nothing of ours, and repeats the types of its requests under their names."""
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.walk(ast.parse((HOUSE / path).read_text())):
            if isinstance(node, ast.ClassDef) and "helper" not in path.parts:
                homes.setdefault(node.name, []).append(str(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_every_module_can_be_imported() -> None:
    """On whatever Python runs the tests: a name that a later Python dropped shows only here."""
    names = (".".join(("hyper2kvmd", *path.with_suffix("").parts)) for path in modules())
    loads = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    wanted = [name for name in names if not name.endswith(RUN_NOT_IMPORTED)]
    argv = [sys.executable, "-W", "error::DeprecationWarning", "-c", loads, *wanted]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [path for path in modules() if path.name == "__init__.py"], ids=str)
def test_a_folder_says_what_belongs_there_and_what_does_not(path: Path) -> None:
    said = ast.get_docstring(ast.parse((HOUSE / path).read_text())) or ""
    assert len(re.findall(r"\.(?:\s|$)", said)) > 1, "two sentences"


def assigned(path: Path) -> list[str]:
    """The names that a module assigns at its top."""
    tops = ast.parse(path.read_text()).body
    targets = [target for node in tops if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tops if isinstance(node, ast.AnnAssign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def test_a_constant_is_given_once_and_used() -> None:
    """What a merge leaves behind: an earlier value, or one that nothing reads any more."""
    modules = {path: assigned(path) for path in sorted(HOUSE.rglob("*.py")) if "versions" not in path.parts}
    twice = [(path.name, name) for path, names in modules.items() for name in set(names) if names.count(name) > 1]
    words = Counter(word for path in modules for word in re.findall(r"\w+", path.read_text()))
    unused = [(path.name, name) for path, names in modules.items() for name in names if words[name] == 1]
    assert (twice, unused) == ([], [])
