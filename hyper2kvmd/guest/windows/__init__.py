"""Windows guests: what hardware they can drive. Their inspection and the injection of drivers belong here as well.

What both families need (mounts, files) belongs in the rooms beside this one.
"""

from __future__ import annotations

from hyper2kvmd.model.guest import Capabilities

WITHOUT_DRIVERS = Capabilities(disk_bus="sata", nic_model="e1000e", rtc="localtime")
"""What Windows drives without virtio drivers; it keeps the hardware clock in local time."""
