"""publish: put the images and their report at the target, all or none."""

from __future__ import annotations

from hyper2kvmd import __version__
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.results import Artifact, PublishedDisk, Verdict
from hyper2kvmd.report import Report
from hyper2kvmd.stages.bench import Bench


def publish(bench: Bench, plan: Plan, hardware: Hardware, image: Image, guest: Guest, verdict: Verdict) -> Artifact:
    """Hand images and report to the target. Raises as `Target.place` does."""

    def report(disks: tuple[PublishedDisk, ...]) -> Report:
        return Report(
            version=__version__,
            order=bench.order,
            plan=plan,
            hardware=hardware,
            image=image,
            guest=guest,
            verdict=verdict,
            seconds=dict(bench.ctx.seconds),
            published=disks,
        )

    return bench.target.place(plan, image, report)
