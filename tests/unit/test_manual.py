"""The manual pages say what the program is: every command, option, key, default and exit code of it, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import pytest
import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from hyper2kvmd import config, errors, spec
from hyper2kvmd.cli import ctl, oneshot
from hyper2kvmd.cli.ctl import cli
from hyper2kvmd.cli.daemon import main
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.service import RELOADABLE
from hyper2kvmd.model.asked import Migration
from tests.support.host import HELPER, unit_settings

MANUAL = Path(__file__).parents[2] / "packaging" / "man"
ELSEWHERE = {("sudo", "8"), ("systemd", "1")}
BY_WORDS = {"vmdk": "By default", "vm_name": "By default", "database_url": "Default:"}
"""Keys whose default is no plain value, or none."""


@dataclass
class Item:
    """An entry of a list: its heading, its text, and the entries of lists within."""

    head: str
    lines: list[str] = field(default_factory=list)
    inner: list[Item] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join([*self.lines, *(f"{item.head}\n{item.text}" for item in self.inner)])


def page(name: str) -> str:
    return (MANUAL / name).read_text()


def section(text: str, title: str) -> str:
    """What comes after that heading, up to the next of its kind or above."""
    for kind, until in (("Sh", r"^\.Sh "), ("Ss", r"^\.S[hs] ")):
        _, found, after = text.partition(f".{kind} {title}\n")
        if found:
            return re.split(until, after, maxsplit=1, flags=re.MULTILINE)[0]
    raise AssertionError(f"no section {title}")


def items(text: str) -> list[Item]:
    """The entries of the outermost lists."""
    outermost = Item("")
    open_lists: list[Item] = []
    for line in text.splitlines():
        if line.startswith(".Bl "):
            open_lists.append(open_lists[-1].inner[-1] if open_lists else outermost)
        elif line == ".El":
            open_lists.pop()
        elif line.startswith(".It "):
            open_lists[-1].inner.append(Item(line.removeprefix(".It ")))
        elif open_lists:
            open_lists[-1].inner[-1].lines.append(line)
    assert not open_lists
    return outermost.inner


def flags(text: str) -> set[str]:
    """Options that are named there, as they are written on a command line."""
    found = re.findall(r"\bFl ((?:h , )?-[a-z-]+)", text)
    return {f"-{name}" for names in found for name in names.split(" , ")}


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts}


# ---------------------------------------------------------------- programs

HELP = {"-h", "--help"}
COMMANDS: dict[str, click.Command] = {
    name: command for name in ctl.COMMANDS if (command := ctl.cli.get_command(click.Context(ctl.cli), name))
}


def described_commands() -> dict[str, Item]:
    listed = [item for item in items(page("h2kvmctl.1")) if item.head.startswith("Cm ")]
    return {item.head.split()[1]: item for item in listed}


@pytest.mark.parametrize(("name", "command"), [("h2kvmctl.1", cli), ("hyper2kvmd.8", main)])
def test_options_are_those_of_the_program(name: str, command: click.Command) -> None:
    listed = [item for item in items(page(name)) if item.head.startswith("Fl ")]
    assert set().union(*(flags(item.head) for item in listed)) == options(command) | HELP
    assert flags(section(page(name), "SYNOPSIS")) == options(command) - {"--version"}


def test_commands_are_those_of_the_program() -> None:
    assert set(described_commands()) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_commands_options_and_arguments(name: str) -> None:
    command, item = COMMANDS[name], described_commands()[name]
    assert "--json" in options(command)
    assert flags(item.text) == options(command) - {"--json", "--socket"}
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    asked = " ".join((one.metavar or str(one.name)).lower().replace("...", " ...") for one in arguments)
    assert item.head == f"Cm {name} Ar {asked}".removesuffix(" Ar ")


def test_commands_stand_where_they_get_their_answers() -> None:
    to_daemon = {item.head.split()[1] for item in items(section(page("h2kvmctl.1"), "Commands to the daemon"))}
    assert to_daemon == {name for name, command in COMMANDS.items() if "--socket" in options(command)}


@pytest.mark.parametrize("name", ["h2kvmctl.1", "hyper2kvmd.8", "hyper2kvm-migration.5"])
def test_exit_codes(name: str) -> None:
    told = {int(item.head) for item in items(section(page(name), "EXIT STATUS"))}
    ends: list[type[errors.Explained]] = [errors.Failure, errors.Interrupted, *errors.Failure.__subclasses__()]
    there = {0, *(end.exit_code for end in ends)}
    not_the_daemons = {errors.Unsafe.exit_code, errors.Interrupted.exit_code}
    assert told == (there - not_the_daemons if name == "hyper2kvmd.8" else there)


def test_files_of_the_daemon() -> None:
    told = {item.head.removeprefix("Pa ") for item in items(section(page("hyper2kvmd.8"), "FILES"))}
    here = DaemonConfig()
    places = (here.spool_dir, here.conversion_dir, here.output_dir, here.control_socket, config.DEFAULT_PATH, HELPER)
    database = here.database_url.removeprefix("sqlite:///")
    socket = unit_settings("hyper2kvm-helper.socket")["ListenSequentialPacket"]
    assert told == {*map(str, places), database, socket}
    assert here.helper[-1] == str(HELPER) if isinstance(here.helper, tuple) else None


def test_the_environment() -> None:
    for name in ("h2kvmctl.1", "hyper2kvmd.8"):
        assert f".It Ev {oneshot.VARIABLE}\n" in section(page(name), "ENVIRONMENT")


def test_the_old_name_leads_to_the_same_page() -> None:
    assert page("hyper2kvm.1") == ".so man1/h2kvmctl.1\n"


# ---------------------------------------------------------------- keys


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, known in model.model_fields.items():
        kind = known.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", known


def described_keys(listed: list[Item], prefix: str = "") -> Iterator[tuple[str, Item]]:
    for item in listed:
        if item.head.startswith("Ic "):
            name = prefix + item.head.split()[1]
            if item.inner:
                yield from described_keys(item.inner, f"{name}.")
            else:
                yield name, item


PAGES: dict[str, type[BaseModel]] = {"hyper2kvmd.yaml.5": DaemonConfig, "hyper2kvm-migration.5": Migration}
KEYS = [(name, key, known) for name, model in PAGES.items() for key, known in keys(model)]


@pytest.mark.parametrize("name", PAGES)
def test_keys_are_those_of_the_program(name: str) -> None:
    told = [key for key, _ in described_keys(items(page(name)))]
    assert sorted(told) == sorted(key for key, _ in keys(PAGES[name]))


@pytest.mark.parametrize(("name", "key", "known"), KEYS, ids=[f"{name}-{key}" for name, key, _ in KEYS])
def test_a_keys_default_and_values(name: str, key: str, known: FieldInfo) -> None:
    text = dict(described_keys(items(page(name))))[key].text
    default = re.search(r"^Default:\n\.Ql (.+?)(?: [.;,])?$", text, re.MULTILINE)
    if key in BY_WORDS:
        assert BY_WORDS[key] in text
    elif known.default is None:
        assert default is None and "By default" in text
    else:
        assert default is not None
        assert yaml.safe_load(default[1]) == to_jsonable_python(known.default)
    if values := allowed_values(known):
        assert set(re.findall(r"^\.Ql (\S+)", text, re.MULTILINE)) == values
    for bound in known.metadata:
        if isinstance(bound, Ge | Le):
            number: Any = bound.ge if isinstance(bound, Ge) else bound.le
            assert re.search(rf"\b{number}\b", text), f"the bound {number} is not told"


def allowed_values(known: FieldInfo) -> set[str]:
    if get_origin(known.annotation) is Literal:
        return set(get_args(known.annotation))
    patterns = [getattr(one, "pattern", None) or "" for one in known.metadata]
    words = [re.fullmatch(r"\^\(([a-z|]+)\)\$", pattern) for pattern in patterns]
    return {word for found in words if found for word in found[1].split("|")}


def test_the_database_is_in_the_state_directory() -> None:
    assert f".Ql {DaemonConfig().database_url} ;\n" in page("hyper2kvmd.yaml.5")


def test_keys_that_a_reload_does_not_take_up_say_so() -> None:
    told = {key.partition(".")[0]: "Restart." in item.lines for key, item in described_keys(items(page(KEYS[0][0])))}
    assert {key for key, restart in told.items() if not restart} == RELOADABLE


def test_the_examples_are_valid(tmp_path: Path) -> None:
    def examples(name: str) -> list[str]:
        return re.findall(r"\.Bd -literal -offset indent\n(.*?)\.Ed", page(name), re.DOTALL)

    for text in examples("hyper2kvm-migration.5"):
        assert all(one.migration.sources for one in spec.parse(text, default_name="web01"))
    for text in examples("hyper2kvmd.yaml.5"):
        file = tmp_path / "hyper2kvmd.yaml"
        file.write_text(text)
        assert config.load(file) != DaemonConfig()


def test_pages_refer_to_pages_that_exist() -> None:
    ours = {tuple(path.name.rsplit(".", 1)) for path in MANUAL.iterdir()}
    for path in MANUAL.iterdir():
        for reference in re.findall(r"\bXr (\S+) (\d)", path.read_text()):
            assert reference in ours | ELSEWHERE, path.name
