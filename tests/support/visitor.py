"""A visit to a guest as the service user: visitor.py IMAGE_JSON FOLDER HELPER_JSON.

One JSON line says what came of it.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

from hyper2kvmd.errors import Failure
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.mounts.access import open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import Image

FSTAB = "/etc/fstab"


def outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except Failure as failure:
        return failure.code
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def read(root: ConfinedRoot) -> str:
    text = root.read(FSTAB, 1 << 20).decode()
    return "read" if text.startswith("/dev/sda1 ") else text


def replace(root: ConfinedRoot) -> str:
    root.replace(FSTAB, b"replaced\n")
    return "replaced"


def main() -> None:
    image, folder, helper = Image.model_validate_json(sys.argv[1]), Path(sys.argv[2]), tuple(json.loads(sys.argv[3]))
    with open_image(image, Helper(helper), folder) as access, access.mount(image.layout.volumes[0]) as mounted:
        root = ConfinedRoot(mounted)
        print(json.dumps({"read": outcome(lambda: read(root)), "replace": outcome(lambda: replace(root))}))


if __name__ == "__main__":
    main()
