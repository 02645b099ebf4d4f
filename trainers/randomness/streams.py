"""Randomness as a pure function of (seed, stream, counters): no generator, no state.

Every draw names what it is for, so no arm, worker or interruption can shift the draws of another.
The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
written in 64-bit integer operations, so that CPU and GPU give the same bits.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = TypeVar("Words", Tensor, npt.NDArray[Any])

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_BLOCK = 2**15
"""Counters whose words stay in a CPU's cache from one round to the next."""


def philox(counters: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> list[Words]:
    """Four words of 32 random bits for each counter.

    `counters` are four int64 tensors, or uint64 arrays, that broadcast together, values in
    [0, 2³²); `key` two words of 32 bits. Returns four of the broadcast shape, values in [0, 2³²).
    """
    zero, one, two, three = counters
    low_key, high_key = key
    for _ in range(_ROUNDS):
        # The upper halves of `one` and `three` are left as they are: what they meet is cut later.
        first, second = zero * _MULTIPLIERS[0], two * _MULTIPLIERS[1]
        zero, one, two, three = (
            ((second >> 32) ^ one ^ low_key) & _LOW,
            second,
            ((first >> 32) ^ three ^ high_key) & _LOW,
            first,
        )
        low_key, high_key = (low_key + _WEYL[0]) & _LOW, (high_key + _WEYL[1]) & _LOW
    return [zero, one & _LOW, two, three & _LOW]


def packed(
    epochs: Tensor, view: Tensor | int, slot: Tensor | int, views: int, slots: int
) -> Tensor:
    """One counter for a slot of a view in an epoch: of `views` an epoch, and `slots` a view."""
    return (epochs * views + view) * slots + slot


@dataclass(frozen=True)
class Stream:
    """One purpose of randomness in one run, for example `Stream(seed, "augmentation")`.

    Streams of different names or seeds are independent. Counters are int64 tensors (or ints) that
    broadcast together: up to two words of 64 bits in all, see each method.
    """

    seed: int
    name: str

    @property
    def key(self) -> tuple[int, int]:
        """Two 32-bit words from a hash of seed and name."""
        digest = hashlib.blake2b(f"{self.seed}/{self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")

    def bits(self, major: Tensor, minor: Tensor) -> list[Tensor]:
        """Four words of 32 random bits for each pair of 64-bit counters, as int64 tensors."""
        if major.device.type == minor.device.type == "cpu":
            # NumPy starts an operation in a fraction of PyTorch's time, and draws are often few.
            wide, narrow = (np.atleast_1d(one.numpy().view(np.uint64)) for one in (major, minor))
            words = philox((wide & _LOW, wide >> 32, narrow & _LOW, narrow >> 32), self.key)
            shape = np.broadcast_shapes(major.shape, minor.shape)
            return [torch.from_numpy(word.view(np.int64)).view(shape) for word in words]
        return philox(
            (major & _LOW, (major >> 32) & _LOW, minor & _LOW, (minor >> 32) & _LOW), self.key
        )

    def uniform(self, major: Tensor, minor: Tensor) -> Tensor:
        """Uniform float32 in [0, 1), a multiple of 2⁻²⁴; shape of the broadcast counters."""
        return _uniform(self.bits(major, minor))

    def permutation(self, epoch: int, size: int, device: torch.device) -> Tensor:
        """A random order of `range(size)` for one epoch, int64 [size]."""
        places = torch.arange(size, device=device)
        return self.order(torch.tensor(epoch, device=device), places)

    def order(self, major: Tensor, minor: Tensor) -> Tensor:
        """Places of the counters in a random order, int64 [n]: sorted by 63 bits of each."""
        high, low, _, _ = self.bits(major, minor)
        return ((high << 31) | (low >> 1)).argsort(stable=True)

    def normal(self, shape: torch.Size, deviation: float) -> Tensor:
        """Normal values of mean 0 and the given standard deviation, float32 of `shape`.

        The inverse of the normal distribution function at keyed uniforms, in float64.
        """

        def from_words(words: list[Tensor]) -> Tensor:
            high, low, _, _ = words
            uniform = ((high << 20) | (low >> 12)).to(torch.float64).add_(0.5).mul_(2.0**-52)
            return torch.special.ndtri(uniform).mul_(deviation)

        return self._filled(shape, from_words)

    def uniform_filled(self, shape: torch.Size) -> Tensor:
        """What `uniform` gives for the counters 0, 1, 2, …, float32 of `shape`, made faster."""
        return self._filled(shape, _uniform)

    def _filled(self, shape: torch.Size, made: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """What is made of the words of the counters 0, 1, 2, …, float32 of `shape`."""
        values = torch.empty(shape.numel())
        zero = torch.zeros((), dtype=torch.int64)

        def fill(start: int) -> None:
            part = values[start : start + _BLOCK]
            part.copy_(made(self.bits(zero, torch.arange(start, start + len(part)))))

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, range(0, len(values), _BLOCK)))
        return values.reshape(shape)


def _uniform(words: list[Tensor]) -> Tensor:
    return (words[0] >> 8).to(torch.float32) * 2.0**-24
