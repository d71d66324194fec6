"""Commands are imported when they are wanted, and listed as if they had been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from hyper2kvmd.cli import ctl
from hyper2kvmd.cli.lazy import LazyCommand

CONTEXT = click.Context(ctl.cli)
HEAVY = ("pydantic", "rich", "aiohttp", "sqlalchemy", "yaml", "asyncio")
"""What takes longer to import than all that `--help` needs."""


@pytest.mark.parametrize(("name", "place"), ctl.COMMANDS.items())
def test_a_command_is_where_the_list_says_and_is_what_it_says(name: str, place: LazyCommand) -> None:
    command = ctl.cli.get_command(CONTEXT, name)
    assert command is not None
    assert command.hidden == (place.help == "")
    if place.help:
        assert command.help is not None
        assert " ".join(command.help.split()).startswith(place.help)


def test_no_command_is_missing_from_the_list() -> None:
    modules = {f"hyper2kvmd.cli.{place.module}" for place in ctl.COMMANDS.values()}
    for name in ctl.COMMANDS:
        ctl.cli.get_command(CONTEXT, name)
    written = {command.name for module in modules for command in sys.modules[module].COMMANDS}
    assert written == set(ctl.COMMANDS)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("web01.yaml", "use `h2kvmctl --config web01.yaml`"),
        ("/srv/a b.yml", "use `h2kvmctl submit '/srv/a b.yml'`"),
        ("./job", "--config ./job"),
        ("web01.ova", "(`ova: web01.ova`)"),
        ("plann", "Did you mean plan?"),
        ("migrate", "The commands are batch, batches, cancel,"),
    ],
)
def test_a_word_in_the_place_of_a_command_has_a_hint(word: str, hint: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        ctl.cli.main([word], standalone_mode=False)
    assert caught.value.message.startswith(f"{word} is not a command. ") and hint in caught.value.message


def test_a_command_that_is_none() -> None:
    assert ctl.cli.get_command(CONTEXT, "migrate") is None


OURS = {f"hyper2kvmd{name}" for name in ("", ".cli", ".errors", ".findings")} | {
    f"hyper2kvmd.cli.{name}" for name in ("ctl", "lazy", "options", "output")
}
"""Our modules that `--help` may import."""


def imported(*words: str) -> set[str]:
    """The modules that h2kvmctl has imported at its end."""
    check = (
        "import contextlib, sys, hyper2kvmd.cli.ctl as ctl\n"
        "with contextlib.suppress(BaseException): ctl.cli(sys.argv[1:], standalone_mode=False, obj=ctl.Output())\n"
        "print('modules', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_nothing_heavy() -> None:
    found = imported("--help")
    assert found & set(HEAVY) == set()
    assert {name for name in found if name.partition(".")[0] == "hyper2kvmd"} == OURS


def test_a_command_to_the_daemon_reads_no_yaml_and_loads_no_server(tmp_path: Path) -> None:
    found = imported("list", "--socket", str(tmp_path / "none"))
    assert "hyper2kvmd.client.client" in found
    assert found & {*HEAVY, "hyper2kvmd.spec", "hyper2kvmd.config"} - {"pydantic"} == set()


def test_the_daemons_help_loads_no_server() -> None:
    check = "import hyper2kvmd.cli.daemon as it, sys; it.main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("hyper2kvmd.worker", ("asyncio", "ssl", "psutil", "aiohttp", "sqlalchemy", "yaml")),
        ("hyper2kvmd.daemon.service", ("alembic", "psutil", "rich", "click", "smtplib")),
    ],
)
def test_a_process_of_the_service_imports_only_what_it_always_needs(module: str, unneeded: tuple[str, ...]) -> None:
    check = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(unneeded) == set()
