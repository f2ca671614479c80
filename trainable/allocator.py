"""Memory that a training step frees stays with its process, for the next step."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3) and their defaults, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024, _MMAP_MAX: 65536}
# A thread's own heaps are of 64 MiB each: one whose padding is larger is never given back.
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 * 2**20, _MMAP_MAX: 0}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed inside, and give it all back to the system at the end.

    glibc returns large blocks at once, and the feature maps of the next training step then wait for the
    system to hand out and clear the same pages again: measured by benchmarks/allocator.py. Where that was
    looked at, hgru and gru on images of 224 px, peak memory was the same to 3 %.

    In another thread than the first, blocks above 64 MiB are returned all the same.

    For training on a CPU; a GPU has an allocator of its own that does this. It changes nothing where MALLOC_
    variables or GLIBC_TUNABLES are set, where addresses are limited (`ulimit -v`), which free memory keeps
    occupied, or where the C library has no mallopt.
    """
    libc = ctypes.CDLL(None)
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if chosen or limited or not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    for parameter, value in _KEEPING.items():
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
