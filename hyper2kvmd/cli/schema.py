"""`h2kvmctl schema`: the JSON Schema of a file, for editors and other programs.

`python -m hyper2kvmd.cli.schema FOLDER` writes all of them, for docs/reference/.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import click

from hyper2kvmd.cli.output import Output, json_option
from hyper2kvmd.manual import Name
from hyper2kvmd.yaml_schema import Schema
from hyper2kvmd.yaml_schema import schema as schema_of

NAMES: tuple[Name, ...] = get_args(Name)


@click.command()
@click.argument("name", type=click.Choice(NAMES), default="migration", metavar="FILE")
@json_option
@click.pass_obj
def schema(output: Output, name: Name) -> None:
    """Print the JSON Schema of a migration YAML or of the configuration.

    FILE is `migration` (the default) or `configuration`. Editors with a YAML language server check and complete a file
    that begins with `# yaml-language-server: $schema=PATH`.
    """
    if output.json:
        output.data(schema_of(name))
    else:
        click.echo(_text(schema_of(name)))


def _text(value: Schema) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def write(folder: Path) -> None:
    """NAME.schema.json for each file."""
    for name in NAMES:
        (folder / f"{name}.schema.json").write_text(_text(schema_of(name)) + "\n")


COMMANDS: list[click.Command] = [schema]

if __name__ == "__main__":
    write(Path(sys.argv[1]))
