"""What a run computes on: its last bits depend on it, as they do on code and data."""

import platform
from typing import Any

import torch


def machine_of(device: torch.device) -> dict[str, Any]:
    """Type and name of `device`, versions of PyTorch and, on a GPU, of CUDA and cuDNN, by name.

    Without a GPU the name is that of the processor's kind, as `x86_64`.
    """
    on_cuda = device.type == "cuda" and torch.cuda.is_available()
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if on_cuda else platform.machine(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
    }
