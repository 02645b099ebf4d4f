"""Out of memory is one line with the knobs to change, wherever it happens."""

import errno
import json

import numpy as np
import pytest
import torch

from trainers import __main__ as command
from trainers.errors import OutOfMemoryError
from trainers.system.memory import is_out_of_memory, memory_explained
from trainers.training import loop


def too_large(*_arguments, **_named):
    """Ask PyTorch for an exbibyte."""
    return torch.empty(2**60, dtype=torch.uint8)


def ask_numpy():
    np.empty(2**60, dtype=np.uint8)


def ask_a_gpu():
    # What PyTorch 2.14 says on a card.
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a")


def ask_a_library():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def ask_the_system():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize(
    ("ask", "amount"),
    [
        (too_large, " (1152921504606846976 bytes more were asked for)"),
        (ask_numpy, ""),
        (ask_a_gpu, " (2.50 GiB more were asked for)"),
        (ask_a_library, ""),
        (ask_the_system, ""),
    ],
)
def test_memory_asked_for_in_vain_is_one_line_with_the_amount(ask, amount):
    with (
        pytest.raises(OutOfMemoryError) as caught,
        memory_explained("an evaluation", "lower evaluation.batch_size"),
    ):
        ask()
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("out of memory in an evaluation")
    assert said.endswith(": lower evaluation.batch_size")
    assert amount in said


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"), memory_explained("a", "b"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))


@pytest.fixture
def arguments(tmp_path):
    changes = [
        "steps=4", "model.depth=2", "evaluation.globality_layers=[1]", "evaluation.every=4",
        "checkpoint_every=2",
    ]  # fmt: skip
    sets = [part for change in changes for part in ("--set", change)]
    return ["trainers", "digits_tiny", "--root", str(tmp_path), *sets]


def test_a_step_without_memory_ends_the_run_in_one_line_and_keeps_its_checkpoint(
    arguments, tmp_path, monkeypatch, capsys
):
    update = loop.update

    def update_until_full(state, *others, **how):
        return too_large() if state.step == 3 else update(state, *others, **how)

    monkeypatch.setattr("sys.argv", arguments)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", update_until_full)
        assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("out of memory in a training step (1152921504606846976 bytes")
    for knob in ("compute.accumulate (1 now)", "batch_size (32 now)", "augment.local_crops"):
        assert knob in said
    assert "evaluation." not in said
    assert said.count("\n") == 1
    assert command.main() == 0
    (result,) = tmp_path.glob("trials/*/result.json")
    assert json.loads(result.read_text())["resumed_at"] == 2


def test_an_evaluation_without_memory_names_its_own_knobs(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", arguments)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", too_large)
        assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("out of memory in an evaluation")
    assert "evaluation.batch_size (256 now) or evaluation.attention_memory (16 MiB now)" in said
    assert "accumulate" not in said
    assert said.count("\n") == 1
