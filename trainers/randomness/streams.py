"""Randomness as a pure function of (seed, stream, counters): no generator, no state.

Every draw names what it is for, so no arm, worker or interruption can shift the draws of another.
The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
written in 64-bit integer tensor operations, so that CPU and GPU give the same bits.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counters: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four words of 32 random bits for each counter.

    `counters` are four int64 tensors that broadcast together, values in [0, 2³²); `key` two words
    of 32 bits. Returns four int64 tensors of the broadcast shape, values in [0, 2³²).
    """
    zero, one, two, three = torch.broadcast_tensors(*counters)
    low_key, high_key = key
    for _ in range(_ROUNDS):
        first, second = zero * _MULTIPLIERS[0], two * _MULTIPLIERS[1]
        zero, one, two, three = (
            ((second >> 32) & _LOW) ^ one ^ low_key,
            second & _LOW,
            ((first >> 32) & _LOW) ^ three ^ high_key,
            first & _LOW,
        )
        low_key, high_key = (low_key + _WEYL[0]) & _LOW, (high_key + _WEYL[1]) & _LOW
    return [zero, one, two, three]


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
        words = (major & _LOW, (major >> 32) & _LOW, minor & _LOW, (minor >> 32) & _LOW)
        return philox(words, self.key)

    def uniform(self, major: Tensor, minor: Tensor) -> Tensor:
        """Uniform float32 in [0, 1), a multiple of 2⁻²⁴; shape of the broadcast counters."""
        return (self.bits(major, minor)[0] >> 8).to(torch.float32) * 2.0**-24

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
        places = torch.arange(shape.numel())
        high, low, _, _ = self.bits(torch.zeros((), dtype=torch.int64), places)
        uniform = ((high << 20) | (low >> 12)).to(torch.float64).add(0.5) * 2.0**-52
        return (torch.special.ndtri(uniform) * deviation).to(torch.float32).reshape(shape)
