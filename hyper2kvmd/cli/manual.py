"""The manual pages, made from the commands themselves and from `hyper2kvmd.manual`.

`python -m hyper2kvmd.cli.manual man FOLDER` writes the pages for `man`, and `... reference FOLDER` those of
docs/reference/.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from hyper2kvmd.cli import ctl
from hyper2kvmd.cli import daemon as program
from hyper2kvmd.daemon import openapi
from hyper2kvmd.manual import api_page, exits, keys_page, mdoc, site
from hyper2kvmd.manual.page import Group, ManualPage, Term

HELP = Term("option", "-h, --help", "Print a summary of the program or of a command.")
HERE, TO_DAEMON = "commands here", "commands to the daemon"
EVERYWHERE = {"--json", "--socket"}
"""Options that are described once, for all commands."""


def pages() -> tuple[ManualPage, ...]:
    return (keys_page.migration(), keys_page.configuration(), control(), daemon())


def control() -> ManualPage:
    """h2kvmctl(1)."""
    commands = [(name, command) for name, command in _commands() if not command.hidden]
    remote = [one for one in commands if "--socket" in _names(one[1])]
    return ManualPage(
        name="h2kvmctl",
        section=1,
        summary="migrate VMware disks to KVM, directly or through the daemon",
        prose=keys_page.prose("h2kvmctl"),
        groups={
            "options": (Group((*_options(ctl.cli), HELP)),),
            HERE: (Group(tuple(_described(*one) for one in commands if one not in remote)),),
            TO_DAEMON: (Group(tuple(_described(*one) for one in remote)),),
            "exit statuses": (exits.of_commands(),),
        },
        synopsis=(_usage("h2kvmctl", ctl.cli, needed="--config"), "h2kvmctl COMMAND [ARGUMENT...]"),
        other_names=("hyper2kvm",),
    )


def daemon() -> ManualPage:
    """hyper2kvmd(8)."""
    return ManualPage(
        name="hyper2kvmd",
        section=8,
        summary="migrate VMware virtual machines to KVM",
        prose=keys_page.prose("hyper2kvmd"),
        groups={"options": (Group((*_options(program.main), HELP)),), "exit statuses": (exits.of_daemon(),)},
        synopsis=(_usage("hyper2kvmd", program.main),),
    )


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(ctl.cli)
    for name in ctl.cli.list_commands(context):
        if command := ctl.cli.get_command(context, name):
            yield name, command


def _described(name: str, command: click.Command) -> Term:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    return Term(
        kind="command",
        name=name,
        values=" ".join(_argument(one) for one in arguments),
        text=_unwrapped(command.help or ""),
        inner=tuple(term for term in _options(command) if not EVERYWHERE & set(term.name.split(", "))),
    )


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required else f"[{name}]"


def _options(command: click.Command) -> Iterator[Term]:
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            names = ", ".join(sorted(option.opts, key=len))
            default = f"\nDefault: `{option.default}`." if option.show_default else ""
            yield Term("option", names, _unwrapped(option.help or "") + default, _value(option))


def _names(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts}


def _value(option: click.Option) -> str:
    """What follows the option, as `--help` writes it, without the bounds of a number."""
    if option.is_flag or option.count:
        return ""
    shown = option.make_metavar(click.Context(click.Command(None)))
    return re.sub(r"( RANGE)?$|\[|\]", "", shown)


def _usage(name: str, command: click.Command, needed: str = "") -> str:
    words = [name]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and "--version" not in option.opts:
            word = " ".join(filter(None, [max(option.opts, key=len), _value(option)]))
            words.append(word if needed in option.opts else f"[{word}]")
    return " ".join(words)


def _unwrapped(text: str) -> str:
    """One sentence a line, as the texts of the manual are written; paragraphs stay."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.replace("\b", "")))
    return "\n\n".join(re.sub(r"(?<=[.!?]) (?=[A-Z])", "\n", paragraph) for paragraph in paragraphs)


# ---------------------------------------------------------------- files


def write_man(folder: Path) -> None:
    """The pages for `man`, and the link for the old name of h2kvmctl."""
    day = datetime.fromtimestamp(float(os.environ.get("SOURCE_DATE_EPOCH", datetime.now(UTC).timestamp())), UTC).date()
    for page in pages():
        (folder / f"{page.name}.{page.section}").write_text(mdoc.render(page, day))
    (folder / "hyper2kvm.1").write_text(".so man1/h2kvmctl.1\n")


def write_reference(folder: Path) -> None:
    """The pages of docs/reference/."""
    for page in pages():
        (folder / site.PAGES[f"{page.name}({page.section})"]).write_text(site.render(page))
    (folder / "exit-codes.md").write_text(exits.markdown())
    (folder / "api.md").write_text(api_page.markdown(openapi.document()))


if __name__ == "__main__":
    {"man": write_man, "reference": write_reference}[sys.argv[1]](Path(sys.argv[2]))
