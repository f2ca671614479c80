"""Which image comes when: a function of (seed, epoch), the same for any number of workers.

A permutation of the training set comes from sorting hashes rather than from numpy's generator, whose
streams may change between versions. The hash is SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1

# Purposes a key is drawn for, so that the order and the crops of an epoch are unrelated.
ORDER = 1
AUGMENTATION = 2


def mix(value: int) -> int:
    """SplitMix64's finaliser on a Python int, modulo 2**64."""
    value &= _MASK
    value = (value ^ (value >> 30)) * MIX_1 & _MASK
    value = (value ^ (value >> 27)) * MIX_2 & _MASK
    return value ^ (value >> 31)


def epoch_key(seed: int, epoch: int, purpose: int) -> int:
    """64 bits that decide everything random of one epoch for one purpose."""
    key = mix(int(seed) + GOLDEN)  # int(): a NumPy integer would overflow
    for part in (epoch, purpose):
        key = mix((key ^ int(part)) + GOLDEN)
    return key


def hash_values(keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash of each value under its key; arrays of at least one dimension, broadcast against each other."""
    value = (values ^ keys) + np.uint64(GOLDEN)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(MIX_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(MIX_2)
    return value ^ (value >> np.uint64(31))


def hash_indices(key: int, count: int) -> NDArray[np.uint64]:
    """Hash of each index 0..count-1 under a key."""
    return hash_values(np.array([key], np.uint64), np.arange(count, dtype=np.uint64))


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` images in an epoch."""
    return np.argsort(hash_indices(epoch_key(seed, epoch, ORDER), count), kind="stable")


def training_order(
    epoch: int, *, seed: int, count: int, batch_size: int, rank: int, world_size: int
) -> NDArray[np.int64]:
    """Indices a rank trains on, in order.

    Batch k over all ranks is permutation[k B : (k + 1) B]; rank r has its r-th slice of B / world_size.
    The last, partial batch is dropped: its images come at another place in the next epoch.
    """
    batches = count // batch_size
    order = permutation(seed, epoch, count)[: batches * batch_size]
    return order.reshape(batches, world_size, batch_size // world_size)[:, rank].reshape(-1)


def validation_order(epoch: int, *, count: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Every world_size-th image from `rank` on: each image once over all ranks, none dropped or repeated."""
    return np.arange(rank, count, world_size)
