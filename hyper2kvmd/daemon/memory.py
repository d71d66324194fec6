"""Keeps the daemon small: memory that only a start or a backup needed goes back to the kernel.

Both calls are of glibc; another C library is left alone.
"""

from __future__ import annotations

import ctypes
import gc

M_ARENA_MAX = -8
"""mallopt(3), <malloc.h>"""

_libc = ctypes.CDLL(None)


def share_one_heap() -> None:
    """One heap for all threads, of which each would keep one of its own. Call it before there are threads."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is unused now."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
