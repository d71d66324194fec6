"""Returns memory to the kernel that only a start or a backup of the daemon needed.

Both functions exist in glibc only.
"""

from __future__ import annotations

import ctypes
import gc

M_ARENA_MAX = -8
"""mallopt(3), <malloc.h>"""

_libc = ctypes.CDLL(None)


def share_one_heap() -> None:
    """Use one heap for all threads instead of one for each. Call it before a thread starts."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return unused memory."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
