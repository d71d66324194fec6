"""Prints `docs/reference/errors.md`."""

from __future__ import annotations

import sys

from hyper2kvmd.catalogue import markdown

sys.stdout.write(markdown())
