"""`completions.py FOLDER`: what bash, zsh and fish need to complete our commands, one folder a shell.

Click's own scripts ask the command itself at each completion, so they cannot grow old. They are named as each shell
looks for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ZshComplete

from hyper2kvmd.cli import ctl, daemon

COMMANDS = {
    "h2kvmctl": (ctl.cli, "_H2KVMCTL_COMPLETE"),
    "hyper2kvm": (ctl.cli, "_H2KVMCTL_COMPLETE"),  # the same program, which always listens to its own name
    "hyper2kvmd": (daemon.main, "_HYPER2KVMD_COMPLETE"),
}
SHELLS = {BashComplete: "{}", ZshComplete: "_{}", FishComplete: "{}.fish"}

for completion, file_name in SHELLS.items():
    folder = Path(sys.argv[1]) / completion.name
    folder.mkdir()
    for name, (command, variable) in COMMANDS.items():
        (folder / file_name.format(name)).write_text(completion(command, {}, name, variable).source() + "\n")
