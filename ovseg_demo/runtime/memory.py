"""Keep memory while a heavy stage runs, and give it back to the system when it is done."""

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

    By default each thread has an arena of its own and keeps in it whatever it once needed, while large blocks go back
    to the system at once; it clears every page that is asked for again, which made first results a third slower.
    """
    if _LIBRARY:
        _LIBRARY.mallopt(_ARENA_MAX, 2)
        _LIBRARY.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        _LIBRARY.mallopt(_TRIM_THRESHOLD, _NEVER)


def trim_allocator() -> None:
    """Return what is free inside the process to the system; takes a few milliseconds."""
    if _LIBRARY:
        _LIBRARY.malloc_trim(0)
