"""`python -m hyper2kvmd.cli.checks.asking CALL`: one request to the root helper, in a process of the service user.

The helper serves only a caller whose own process made the connection. CALL and the answer on stdout are JSON.
"""

from __future__ import annotations

import json
import sys

from pydantic import TypeAdapter

from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS
from hyper2kvmd.guest.mounts.rootside import Helper, Probed
from hyper2kvmd.host import run
from hyper2kvmd.installed import SERVICE_USER
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.orders import HelperCall

STALL_SECONDS = 12.0


class HelperFailure(Frozen):
    message: str
    hint: str


_answer: TypeAdapter[Probed | HelperFailure] = TypeAdapter(Probed | HelperFailure)


def ask(call: HelperCall) -> Probed:
    """The helper's answer to a request. Raises BrokenInstallation (`helper-unreachable`)."""
    return rootside.probe(Helper(call), "doctor", tuple(sorted(set(FILE_SYSTEMS.values()))))


def ask_as_service(call: tuple[str, ...]) -> Probed:
    """As `ask`, for root, with the rights of the service user: this includes sudo and its configuration."""
    module = [sys.executable, "-I", "-m", "hyper2kvmd.cli.checks.asking", json.dumps(call)]
    done = run.run(["runuser", "-u", SERVICE_USER, "--", *module], stall_seconds=STALL_SECONDS)
    answer = _answer.validate_json(done.stdout)
    if isinstance(answer, HelperFailure):
        raise BrokenInstallation("helper-unreachable", answer.message, hint=answer.hint)
    return answer


def _main() -> None:
    try:
        answer: Probed | HelperFailure = ask(tuple(json.loads(sys.argv[1])))
    except BrokenInstallation as failure:
        answer = HelperFailure(message=failure.message, hint=failure.hint)
    sys.stdout.write(answer.model_dump_json())


if __name__ == "__main__":
    _main()
