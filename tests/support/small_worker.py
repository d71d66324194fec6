"""A real worker program that speaks the worker's protocol and does what the "source" tells it, word by word.

`plan [MAC ...]`, `convert`, `publish`: a stage and its product, skipped when that was given (`publish`: and those
before it). `start STAGE`, `progress DONE ALL`, `warn TEXT`, `warn-file PATH`, `machine LINE; LINE`, `helper VERB`:
events. `space N`: asks for N bytes. `file N`: an image of N bytes, or `disk-full`. `note NAME`: an empty file. `wait
PATH`: until that file exists. `fail KIND [CODE]`, `defer CODE`, `fault TRACEBACK`, `die`, `die-once`, `die-at ATTEMPT`,
`kill-daemon`, `nonsense`: ends. `deaf`: SIGTERM is ignored.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from hyper2kvmd.host.space import disk_full
from hyper2kvmd.host.workspace import image_name
from hyper2kvmd.model.disks import DiskImage, Image, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Problem, Stage
from hyper2kvmd.model.machine import Machine, MachineDisk, Plan, SourceNic
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import FIELDS, Artifact, Product, PublishedDisk, Verdict
from hyper2kvmd.progress import (
    AwaitingSpace,
    Ended,
    Event,
    HelperAnswered,
    MachineDecided,
    Progress,
    StageFinished,
    StageStarted,
    StepStarted,
    Warned,
    problem,
)

DATA = 1 << 20
"""Bytes of the guest's data in the plan."""
SECONDS = {stage: 2.0 if stage is Stage.CONVERT else 0.5 for stage in Stage}


class Interrupted(Exception):
    pass


class Deferred(Exception):
    """With its code."""


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


def say(event: Event) -> None:
    print(event.model_dump_json(), flush=True)


def product(order: Order, folder: Path, stage: Stage, macs: str) -> Product:
    if stage is Stage.PLAN:
        source = LocalFile(path=order.migration.vmdk[0])
        disk = SourceDisk(at=source, subformat="small", virtual_size=DATA, data_bytes=DATA, files=())
        nics = tuple(SourceNic(mac=mac) for mac in macs.split())
        machine, layout = Machine(disks=(MachineDisk(at=source),), nics=nics), Layout(tables=("none",))
        return Plan(machine=machine, disks=(disk,), layout=layout, firmware="bios", needed_bytes=1)
    if stage is Stage.CONVERT:
        image = DiskImage(path=folder / "disk.qcow2", virtual_size=1, file_bytes=4096)
        return Image(disks=(image,), format="qcow2", layout=Layout(tables=("none",)))
    if stage is Stage.REPAIR:
        return Guest()
    if stage is Stage.VERIFY:
        return Verdict(level="check", evidence=("it is there",))
    image_path = order.output_dir / order.migration.output_names(1)[0]
    image_path.parent.mkdir(parents=True, exist_ok=True)
    image_path.write_text("an image")
    published = PublishedDisk(path=image_path, file_bytes=8)
    report = image_path.with_suffix(".json")
    return Artifact(disks=(published,), format="qcow2", report_json=report, report_markdown=report)


def carry_out(order: Order, folder: Path, words: list[str]) -> Problem | None:
    run: set[Stage] = set()
    for number, line in enumerate(words):
        word, _, rest = line.partition(" ")
        if word in ("plan", "convert", "publish"):
            stage = Stage(word)
            before = (Stage.CONVERT, Stage.REPAIR, Stage.VERIFY) if stage is Stage.PUBLISH else ()
            for one in (*before, stage):
                made = product(order, folder, one, rest)
                if one not in run and getattr(order.finished, FIELDS[type(made)]) is None:
                    run.add(one)
                    say(StageStarted(stage=one))
                    say(StageFinished(stage=one, seconds=SECONDS[one], product=made))
        elif word == "start":
            say(StageStarted(stage=Stage(rest)))
        elif word == "space":
            say(AwaitingSpace(needed_bytes=int(rest), publish_bytes=0))
            if sys.stdin.readline().strip() != "go":
                raise BlockingIOError
        elif word == "progress":
            done, total = map(int, rest.split())
            say(StepStarted(title="Copying", total=total))
            say(Progress(title="Copying", done=done, total=total))
        elif word == "warn":
            say(Warned(message=rest.replace("\\n", "\n")))
        elif word == "inform":
            say(Warned(message=rest, level="information"))
        elif word == "machine":
            say(MachineDecided(lines=tuple(rest.split("; "))))
        elif word == "warn-file":
            say(Warned(message=Path(rest).read_bytes().decode()))
        elif word == "helper":
            say(HelperAnswered(verb=rest, outcome="ok"))
        elif word == "file":
            try:
                (folder / image_name(number, "raw")).write_bytes(os.urandom(int(rest)))
            except OSError:
                return problem(disk_full(folder))
        elif word == "note":
            (folder / rest).touch()
        elif word == "wait":
            while not Path(rest).exists():
                time.sleep(0.02)
        elif word == "fail":
            kind, _, code = rest.partition(" ")
            told = {"code": code or "told-to", "message": "told to fail", "hint": "Tell it otherwise", "kind": kind}
            return Problem.model_validate(told)
        elif word == "defer":
            raise Deferred(rest)
        elif word == "fault":
            shutil.rmtree(folder)
            fact = Problem(code="internal-error", message="a fault", hint="report it", kind="operator")
            say(Ended(outcome="failed", problems=(fact,), traceback=rest.replace("\\n", "\n")))
            sys.exit()
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "kill-daemon":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        elif word in ("die-once", "die-at"):
            if order.attempt == int(rest or 1):
                os.kill(os.getpid(), signal.SIGKILL)
        elif word == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif word == "nonsense":
            print("no event at all", flush=True)
            time.sleep(600)
        else:
            raise ValueError(line)
    return None


def main() -> None:
    signal.signal(signal.SIGTERM, interrupt)
    order = Order.model_validate_json(sys.stdin.readline())
    folder = order.conversion_dir / f"{order.migration.vm_name}.{order.job_id}"
    ended = Ended(outcome="succeeded")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = carry_out(order, folder, order.migration.vmdk[0].read_text().splitlines())
        if found is not None:
            ended = Ended(outcome="failed", problems=(found,))
    except Interrupted:
        fact = Problem(code="interrupted", message="stopped by a signal", hint="Start it again", kind="retry")
        ended = Ended(outcome="interrupted", problems=(fact,))
    except BlockingIOError:
        ended = Ended(outcome="deferred")
    except Deferred as reason:
        fact = Problem(code=str(reason), message="told to wait", hint="Wait", kind="retry")
        ended = Ended(outcome="deferred", problems=(fact,))
    if ended.outcome == "succeeded":
        shutil.rmtree(folder)
    say(ended)


if __name__ == "__main__":
    main()
