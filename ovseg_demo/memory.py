"""Give memory back to the system between requests."""

import ctypes
import sys

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


_LIBRARY = _glibc()


def bound_arenas() -> None:
    """Let all threads allocate from two arenas. By default each thread keeps one, with whatever it once needed."""
    if _LIBRARY:
        _LIBRARY.mallopt(_ARENA_MAX, 2)


def release() -> None:
    """Return what is free inside the process to the system; takes a few milliseconds."""
    if _LIBRARY:
        _LIBRARY.malloc_trim(0)
