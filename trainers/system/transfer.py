"""From the host to a device while the host goes on: one transfer, and a stream beside training."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_ALIGNED = 16


def sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of the CPU on `device`, packed into one transfer that nobody waits for."""
    if device.type == "cpu":
        return list(tensors)
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    packed = torch.empty(end, dtype=torch.uint8, pin_memory=device.type == "cuda")

    def part(whole: Tensor, start: int, like: Tensor) -> Tensor:
        return whole[start : start + like.nbytes].view(like.dtype).view(like.shape)

    for start, tensor in zip(starts, tensors, strict=True):
        part(packed, start, tensor).copy_(tensor)
    there = packed.to(device, non_blocking=True)
    return [part(there, start, tensor) for start, tensor in zip(starts, tensors, strict=True)]


def sent_images(images: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    """Squares uint8 [B, 3, S, S], or images uint8 [3, H, W], on `device`.

    Colours of images stay side by side in memory.
    """
    if isinstance(images, Tensor):
        return sent([images], device)[0]
    there = sent([image.permute(1, 2, 0) for image in images], device)
    return [image.permute(2, 0, 1) for image in there]


class Beside:
    """Work on a CUDA device beside what trains there, in a stream of its own.

    On other devices nothing differs from plain calls.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def making(self) -> "Iterator[None]":
        """What is done inside is queued in that stream."""
        if self._stream is None:
            yield
            return
        # First the device: a thread begins on the first one, where the end of the stream would
        # else go back to, and make a context that takes memory.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def done(self) -> torch.cuda.Event | None:
        """The moment at which all that was queued so far will have been done."""
        return None if self._stream is None else self._stream.record_event()

    def take(self, made: Iterable[Tensor], done: torch.cuda.Event | None) -> None:
        """Let the stream of the caller use the tensors of `made`, which are ready at `done`."""
        if done is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(done)
        for one in made:
            # Else its memory could be given away while this stream still reads it.
            one.record_stream(stream)
