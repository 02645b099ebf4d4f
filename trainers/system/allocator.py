"""The allocator of CPU memory: freed memory stays with the process."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library give no freed memory back to the system; False where it cannot be told.

    By default glibc maps every large tensor anew, and the system hands its pages over, zeroed, one
    fault at a time: a training step allocates the same sizes again and again.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        told = [library.mallopt(_MMAP_MAX, 0), library.mallopt(_TRIM_THRESHOLD, _NEVER)]
    except (OSError, AttributeError):  # another C library
        return False
    return all(told)
