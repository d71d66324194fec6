"""What a migration has published."""

from __future__ import annotations

import json
from pathlib import Path

from hyper2kvmd.model.disks import Image


def published(report: Path) -> Image:
    """The image that a report tells of, beside it."""
    told = json.loads(report.read_text())
    image = Image.model_validate(told["image"])
    paths = [report.with_name(Path(one["path"]).name) for one in told["published"]]
    disks = [disk.with_changes(path=path) for disk, path in zip(image.disks, paths, strict=True)]
    return image.with_changes(disks=tuple(disks))
