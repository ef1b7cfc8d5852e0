"""The memory allocator: it keeps memory while a slow stage runs, and gives it back to the system afterwards."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # the parameters' numbers in glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = 2**30


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


_LIBRARY = _glibc()


def configure_allocator() -> None:
    """Let all threads allocate from two arenas, and let these keep what is freed until `trim_allocator`.

    By default glibc gives each thread an arena of its own, which keeps all the memory that the thread once needed, and
    returns large blocks to the system at once. The system clears every page before it hands the page out again, which
    made first results a third slower. Does nothing without glibc.
    """
    if _LIBRARY:
        _LIBRARY.mallopt(_ARENA_MAX, 2)
        _LIBRARY.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        _LIBRARY.mallopt(_TRIM_THRESHOLD, _NEVER)


def trim_allocator() -> None:
    """Return memory that the process has freed to the system; takes a few milliseconds. Does nothing without glibc."""
    if _LIBRARY:
        _LIBRARY.malloc_trim(0)
