"""A house under fire: jobs go through it while faults come; then the faults end, and everything must be in order."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from tests.faults import invariants, outputs
from tests.faults.disks import guest_disk, small_disk
from tests.faults.house import DaemonEnded, House, until
from tests.faults.watch import Watch

STARTS = 12
"""A daemon that does not come up within so many starts, without a fault, never does."""


class Campaign:
    """Sources, what a clean run makes of them, and the machines that were asked for so far."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.small, self.guest = small_disk(house.sources), guest_disk(house.sources)
        self._digest = outputs.guest_digest(self.small)
        self._sources = outputs.sources(house)
        self._smalls: list[str] = []
        self._guests: list[str] = []
        self._files: dict[str, outputs.Facts] = {}
        self.watch = Watch(house)

    def drop_small(self) -> None:
        self._smalls.append(f"small{len(self._smalls)}")
        self.house.drop_job(self._smalls[-1], vmdk=self.small, guest="none")

    def drop_guest(self) -> None:
        self._guests.append(f"guest{len(self._guests)}")
        self.house.drop_job(self._guests[-1], vmdk=self.guest, regen_initramfs=False)

    def drop_bad(self) -> None:
        number = len(self.house.drops)
        self.house.drop(f"bad{number}.yaml", f"# file {number}\nvmdk: [")

    def learn_clean_guest(self) -> None:
        """What the guest is like after a run without faults: the daemon runs, and all jobs are over."""
        self._files = outputs.guest_files(self.house.images / f"{self._guests[0]}.qcow2")

    def ask_only_for(self, vm_names: Collection[str]) -> None:
        """Of all that was dropped, only these are still expected."""
        self._smalls = [name for name in self._smalls if name in vm_names]
        self._guests = [name for name in self._guests if name in vm_names]

    # ---------------------------------------------------------------- the daemon meanwhile

    def start(self) -> bool:
        """Whether the daemon came up; it may meet a fault first."""
        with suppress(DaemonEnded):
            self.house.start()
            return True
        return False

    def asleep(self) -> bool:
        """Whether no job can go on before a person or the next daemon does something."""
        states = self.house.states().values()
        held = sum(own.count("held") for own in states)
        waiting = [name for name in self.house.waiting_files() if "/." not in name]
        if any(name.startswith("incoming/") for name in waiting) or len(waiting) > held:
            return False
        return not any(state in ("queued", "running") for own in states for state in own)

    # ---------------------------------------------------------------- the end

    def judge(self, told: str) -> None:
        """Faults are over: a fresh daemon must bring all that is left to its end, and leave nothing."""
        wrong = [] if self._bring_to_end() else ["the daemon never came up"]
        if not wrong:
            code = self.house.stop()
            wrong += [f"the daemon ended with {code}"] if code else []
        wrong += self.watch.wrong
        wrong += [] if outputs.sources(self.house) == self._sources else ["a source has changed"]
        states = self.house.states()
        for names, judged in ((self._smalls, {"digest": self._digest}), (self._guests, {"files": self._files})):
            for name in names:
                if states.get(name) != ["succeeded"]:
                    wrong.append(f"{name} is {states.get(name)}: {self._reasons(name)}")
                else:
                    wrong += outputs.wrong_outputs(self.house.images, name, **judged)
        try:
            invariants.check(self.house)
        except AssertionError as error:
            wrong.append(str(error))
        assert not wrong, "\n".join([told, *wrong])

    def _bring_to_end(self) -> bool:
        """Order what the remedies of failed and held jobs say: `retry` them."""
        if not self.house.alive and not any(self.start() for _ in range(STARTS)):
            return False
        for _ in range(5):
            until(
                self.asleep,
                lambda: f"the jobs go on: {self.house.waiting_files()} {self.house.states()}\n{self.house.tail()}",
            )
            left = self.house.rows("SELECT id, vm_name, state, problems FROM jobs WHERE state IN ('failed', 'held')")
            if not left:
                return True
            for row in left:
                self._judge_reason(row)
                self.house.ask("POST", f"/v1/jobs/{row['id']}/retry")
        return True

    def _judge_reason(self, row: dict[str, Any]) -> None:
        """A fault of the host is no fault of the migration or of the program."""
        for problem in json.loads(row["problems"]):
            fact = f"{row['vm_name']} {row['state']}: {problem['code']} ({problem['kind']}): {problem['message']}"
            print(fact)
            if problem["kind"] == "permanent" or problem["code"] == "internal-error":
                self.watch.wrong.append(fact)

    def _reasons(self, name: str) -> list[str]:
        rows = self.house.rows("SELECT problems FROM jobs WHERE vm_name = ?", name)
        return [problem["message"] for row in rows for problem in json.loads(row["problems"])]
