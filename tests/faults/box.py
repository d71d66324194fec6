"""A box: namespaces with an own service user, sudoers file and helper, in which one test runs a real daemon.

`in_box` makes a test run in a box of its own. When the test ends, the kernel ends everything that it has started.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.own_host import FOLDER_PREFIX, SLOT

REPOSITORY = Path(__file__).resolve().parents[2]
KEEP = "H2K_FAULTS_KEEP"
"""Environment: the folder of a test is kept, also if the test succeeds."""
LIMIT_SECONDS = 900.0
"""No test measures by it: it ends one that hangs, which shows before where it does."""


def in_box(test: Callable[..., None]) -> Callable[..., None]:
    """A test whose first parameter is a House: pytest calls it without, and it runs inside a box.

    All other arguments must be JSON. Functions that are decorated so can also be replayed by name:
    `python -m tests.faults MODULE:FUNCTION KEY=VALUE`.
    """
    parameters = list(inspect.signature(test).parameters.values())

    @functools.wraps(test)
    def outside(**arguments: object) -> None:
        run(f"{test.__module__}:{test.__name__}", **arguments)

    del outside.__wrapped__  # pytest would look for the parameters of the test itself
    outside.__signature__ = inspect.Signature(parameters[1:])  # type: ignore[attr-defined]
    outside.inside = test  # type: ignore[attr-defined]
    return outside


def run(case: str, **arguments: object) -> None:
    """Run `module:function` in a box, with a House as its first argument; an error in there is raised here."""
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}faults-", dir="/var/tmp"))
    folder.chmod(0o755)
    output = folder / "output"
    words = " ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [*_unshare(), sys.executable, "-B", "-m", "tests.faults.inside", case, str(folder), json.dumps(arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "H2K_BOX_SLOT": str(SLOT), "PYTHONPATH": str(REPOSITORY)},
        ) as process,
    ):
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            process.kill()
    said = output.read_text(errors="replace")
    if code != 0:
        fact = f"exit status {code}" if code > 0 else "it did not end in time"
        raise AssertionError(f"{said[-12000:]}\n{fact}, in {folder}\nreplay: python -m tests.faults {case} {words}")
    sys.stdout.write(said)
    if not os.environ.get(KEEP):
        subprocess.run(["rm", "-rf", folder], check=True)


def _unshare() -> tuple[str, ...]:
    own = ("--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
    return ("setpriv", "--pdeathsig", "KILL", "unshare", *own, "--")


def arguments_of(words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` of a command line; the values are JSON, or texts."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
