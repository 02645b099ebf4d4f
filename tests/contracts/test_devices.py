"""Nothing that trains or measures mixes devices: all of it runs on a device that refuses to."""

import copy
import dataclasses
import sys
import threading

import pytest
import torch

from tests.contracts.pretend_device import DEVICE, PretendTensor, pretending
from tests.trainers.method.test_sites import BASE, SITES, batch
from trainers.adapters.opening import open_measurable
from trainers.config import override
from trainers.data import image_set
from trainers.data.augment import Views
from trainers.data.image_set import open_images
from trainers.globality.instruments import Settings
from trainers.globality.measurement import Plan, choose, measure
from trainers.method import site
from trainers.metrics import OF_THE_MACHINE
from trainers.model.vit import VisionTransformer, initialise
from trainers.randomness.forward_draws import ForwardDraws
from trainers.runs.saved_run import evaluate_run, find_run
from trainers.system.transfer import Beside
from trainers.system.world import World
from trainers.training import loop, step
from trainers.training.loop import train
from trainers.training.pieces import pieces
from trainers.training.state import TrainState
from trainers.training.step import update

CPU = World(rank=0, size=1, device=torch.device("cpu"))
THERE = World(rank=0, size=1, device=torch.device("pretend"))
SMALL = override(
    BASE,
    {
        "steps": 4, "log_every": 1, "checkpoint_every": 2, "evaluation.every": 4,
        "evaluation.globality_images": 8, "evaluation.globality_probe_images": 4,
        "evaluation.causal_images": 0, "evaluation.probes": False, "evaluation.batch_size": 1500,
        "teacher.kind": "ema", "targets.kind": "centering",
    },
)  # fmt: skip


@pytest.fixture(autouse=True)
def _pretending():
    with pretending():
        yield


@pytest.fixture(scope="module")
def images():
    return open_images(SMALL.data, None)


class TestTheDevice:
    """What it refuses and what it takes, as CUDA does."""

    @pytest.mark.parametrize(
        "mixes",
        [
            lambda here, there: here + there,
            lambda here, there: torch.stack([here, there]),
            lambda here, there: torch.stack([here.sum(), there.sum()]),
            lambda here, there: here @ there,
            lambda here, there: there.add_(here),
            lambda here, there: here.add_(there),
            lambda here, there: here.sum().add_(there.sum()),
            lambda here, there: torch.where(there > 1, there, here),
            lambda here, there: here[there.long()],
            lambda here, there: there.gather(0, here.long()),
            lambda here, there: torch._foreach_add_([there], [here]),
            lambda here, there: there.numpy(),
        ],
    )
    def test_what_mixes_devices_raises(self, mixes):
        here = torch.arange(3.0)
        with pytest.raises((RuntimeError, TypeError), match="device"):
            mixes(here, here.to(DEVICE))

    def test_indices_and_scalars_may_lie_on_the_cpu(self):
        there = torch.arange(3.0, device=DEVICE)
        assert there[torch.tensor([2, 0])].tolist() == [2.0, 0.0]
        assert (there * torch.tensor(2.0)).tolist() == [0.0, 2.0, 4.0]
        there[torch.tensor([True, False, False])] = torch.tensor(5.0)
        assert there.tolist() == [5.0, 1.0, 2.0]

    def test_tensors_are_made_and_say_so_there(self):
        layer = torch.nn.Linear(2, 2).to(DEVICE)
        made = [
            torch.zeros(2, device=DEVICE), torch.tensor([1.0], device=DEVICE),
            torch.eye(2).to(DEVICE), layer.weight, layer(torch.ones(1, 2, device="pretend")),
        ]  # fmt: skip
        assert all(isinstance(one, PretendTensor) and one.device == DEVICE for one in made)
        assert made[0].new_zeros(1, device="cpu").device == made[0].cpu().device == CPU.device

    def test_gradients_are_those_of_the_cpu(self):
        weight = torch.arange(6.0).view(2, 3).requires_grad_()
        there = weight.detach().to(DEVICE).requires_grad_()
        for one in (weight, there):
            (one.T[1:] @ one.exp()).softmax(1)[0].square().sum().backward()
        assert torch.equal(there.grad.cpu(), weight.grad)

    def test_lists_are_one_launch_unless_shapes_differ_between_them(self):
        there = [torch.ones(size, device=DEVICE) for size in (2, 3)]
        scales = list(torch.ones(2, device=DEVICE).unbind())
        with pretending() as counts:
            torch._foreach_add_(there, there)
            torch._foreach_norm(there)
            torch._foreach_mul_(there, scales)
        assert counts.launches == {"_foreach_add_": 1, "_foreach_norm": 1, "_foreach_mul_": 2}

    def test_waits_of_the_host_are_counted_by_line(self):
        with pretending() as counts:
            there = torch.ones(3).to(DEVICE)
            line = sys._getframe().f_lineno
            assert there.sum().item() == 3
            assert [bool(there.sum() == 3), *there.tolist(), *there[there > 2]] == [True, 1, 1, 1]
            there.exp().cumsum(0)
        here = f"tests/contracts/{__name__.rsplit('.', 1)[-1]}.py"
        assert counts.waits == {
            f"{here}:{line - 1}": 1,
            f"{here}:{line + 1}": 1,
            f"{here}:{line + 2}": 3,
        }


def on_device(seen):
    moved = {
        field.name: getattr(seen.views, field.name).to(DEVICE)
        for field in dataclasses.fields(Views)
    }
    return dataclasses.replace(seen, views=Views(**moved), labels=seen.labels.to(DEVICE))


CHANGES = [
    {},
    *({"loss.cls": 0.0, f"loss.{site}": 1.0} for site in SITES),
    {"loss.masked": 1.0, "loss.dense": 1.0, "targets.kind": "sinkhorn", "compute.accumulate": 3},
    {"model.drop_path": 0.3, "model.cls_position": "random", "head.batch_norm": True},
    {"model.patch_position": "rotary", "model.cls_position": "rotary", "model.width": 16},
    {"model.patch_position": "sincos", "model.cls_position": "sincos", "loss.masked": 1.0},
    {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0, "loss.koleo": 1.0},
    {"compute.precision": "bf16", "head.norm_last_layer": False, "targets.kind": "none"},
    {"compute.activation_checkpointing": True, "model.interpolation_offset": 0.1},
    {
        "loss.masked": 1.0,
        "loss.mask_kind": "block",
        "head.patches": "own",
        "targets.patch_temperature": 0.07,
        "model.layer_scale": 0.1,
        "model.mlp": "swiglu",
    },
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_update_runs_on_the_device_and_gives_the_losses_of_the_cpu(change):
    config = override(SMALL, change)
    losses = {}
    for world, move in ((CPU, lambda seen: seen), (THERE, on_device)):
        state = TrainState.fresh(config, world, classes=4)
        assert {p.device.type for p in state.teacher.parameters()} == {world.device.type}
        found = losses[world.device.type] = []
        for number in range(2):
            seen = move(batch(number))
            with pretending() as counts:
                found.append(update(state, seen, config, world).loss)
    # Of the last step on the device: tables are made in the first.
    print(f"waits {counts.waits.total()}, launches {counts.launches.total()}, {counts.moved}")
    assert counts.waits.total() <= 1, counts.waits
    # The device computes in float32, whatever is asked for.
    exact = config.compute.precision == "fp32"
    assert losses["pretend"] == pytest.approx(losses["cpu"], rel=1e-4 if exact else 0.1)


@pytest.mark.parametrize("sides", [(16, 16), (8, 19)], ids=str)
def test_patches_are_embedded_by_a_product_there_as_by_the_convolution_here(sides):
    nowhere = {"model.patch_position": "none", "model.cls_position": "none"}
    backbone = VisionTransformer(override(SMALL, nowhere).model, 16)
    initialise(backbone, 0, 0.1)
    backbone.double()
    images = torch.randn(3, 3, *sides, dtype=torch.float64)
    found = []
    for device in (CPU.device, DEVICE):
        own = copy.deepcopy(backbone).to(device)
        seen = images.detach().to(device).requires_grad_()
        with pretending() as counts:
            tokens, grid = own.embed(seen, ForwardDraws())
            tokens.sin().sum().backward()
        found.append([tokens, seen.grad, own.embedding.weight.grad, own.embedding.bias.grad])
    assert not [name for name in counts.launches if "conv" in name]
    assert grid == (sides[0] // 4, sides[1] // 4)
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-9)


def moving(state):
    """Everything that an update moves, by name."""
    tensors = {f"center {site}": center for site, center in state.centers.items()}
    for role in ("student", "teacher"):
        tensors |= {f"{role} {name}": p for name, p in getattr(state, role).named_parameters()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"moment {index} {name}": value for name, value in moments.items()}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("world", [THERE, CPU], ids=["device", "cpu"])
def test_what_is_not_finite_moves_nothing(world, monkeypatch):
    move = on_device if world is THERE else lambda seen: seen
    state = TrainState.fresh(SMALL, world)
    assert not update(state, move(batch(0)), SMALL, world).failure
    before = moving(state)
    exact = site.distillation
    monkeypatch.setattr(site, "distillation", lambda *given: exact(*given) * float("inf"))
    done = update(state, move(batch(1)), SMALL, world)
    assert done.failure == "loss is inf"
    assert state.step == 1
    after = moving(state)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    monkeypatch.undo()
    assert not update(state, move(batch(1)), SMALL, world).failure
    assert all(not torch.equal(before[name], one) for name, one in moving(state).items())


class Recorder:
    def __init__(self):
        self.records = {}
        self.saved = {}

    def report(self, step, metrics, *, checkpoint=None):
        kept = {
            name: value for name, value in metrics.items() if not name.startswith(OF_THE_MACHINE)
        }
        self.records.setdefault(step, {}).update(kept)
        if checkpoint:
            self.saved[step] = checkpoint.read_bytes()


def run(config, images, world, folder, resume_from=None):
    recorder = Recorder()
    result = train(
        config,
        images=images,
        world=world,
        reporter=recorder,
        checkpoints=folder,
        resume_from=resume_from,
    )
    return result, recorder


EVERYTHING = override(
    SMALL,
    {
        "loss.patches": 0.5, "loss.dense": 0.3, "loss.masked": 0.4, "loss.fixed_patch": 0.2,
        "loss.register_token": 0.3, "loss.labels": 0.1, "loss.koleo": 0.1,
        "augment.shuffle": "patches", "evaluation.replacement": "other",
        "evaluation.probes": True, "evaluation.patch_queries": 4, "evaluation.causal_images": 2,
        # The optimum of strongly penalised weights is found in few steps.
        "evaluation.linear_penalty": 10.0,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A whole run on the device, evaluated with everything, and what it recorded."""
    folder = tmp_path_factory.mktemp("finished")
    torch.set_num_threads(1)
    with pretending():
        result, recorder = run(EVERYTHING, images, THERE, folder)
    (folder / "config.json").write_text(EVERYTHING.model_dump_json())
    return folder, result, recorder


@pytest.mark.slow
def test_a_run_sees_the_crops_of_the_cpu_and_measures_the_same(finished, images, tmp_path):
    _, result, there = finished
    short = override(EVERYTHING, {"steps": 1})
    _, here = run(short, images, CPU, tmp_path)
    assert there.records[1]["data/chain"] == here.records[1]["data/chain"]
    assert result.step == 4
    # At step 0 nothing has been rounded: what differs is how attention is computed.
    assert there.records[0] == pytest.approx(here.records[0], rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("world", [THERE, CPU], ids=["device", "cpu"])
def test_a_run_of_the_device_goes_on_from_its_checkpoint(finished, images, tmp_path, world):
    _, result, whole = finished
    saved = tmp_path / "saved.safetensors"
    saved.write_bytes(whole.saved[2])
    resumed, rest = run(EVERYTHING, images, world, tmp_path, resume_from=saved)
    assert resumed.chain == result.chain
    if world is THERE:
        assert rest.saved[4] == whole.saved[4]
        assert rest.records[4] == pytest.approx(whole.records[4], rel=0, abs=0, nan_ok=True)


@pytest.mark.slow
def test_a_saved_run_is_evaluated_on_the_device(finished, images):
    folder, _, recorder = finished
    metrics = evaluate_run(find_run(folder), images, THERE.device)
    assert metrics == pytest.approx(
        {name: recorder.records[4][name] for name in metrics}, rel=0, abs=0, nan_ok=True
    )


@pytest.mark.slow
def test_a_model_is_measured_on_the_device_as_on_the_cpu(finished, images):
    found = []
    for world in (CPU, THERE):
        model = open_measurable(str(finished[0]))
        places, part = choose(images, 6)
        plan = Plan(
            places=places,
            part=part,
            size=16,
            grid=model.grid(16),
            primary=(1,),
            batch_size=4,
            settings=Settings(memory=1.0, patch_queries=4, causal_images=3, replacement="mean"),
        )
        found.append(measure(model, images, plan, world.device))
    here, there = found
    assert there.metrics == pytest.approx(here.metrics, rel=1e-3, abs=1e-5, nan_ok=True)
    assert there.maps.rollout.device == there.maps.pixels.device == CPU.device


def test_images_that_are_not_kept_in_memory_come_to_the_device(monkeypatch):
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    for side, where in ((16, CPU.device), (80, DEVICE), (0, DEVICE)):
        images = open_images(override(SMALL, {"data.image_size": side}).data, None)
        with pretending() as counts:
            found = images.pixels(torch.tensor([3, 4]), DEVICE)
        # Small squares are cut on the CPU.
        assert {one.device for one in found} == {where}
        assert not counts.waits


DRAWN = {
    "model.drop_path": 0.3, "model.cls_position": "random", "loss.masked": 1.0,
    "compute.accumulate": 2,
}  # fmt: skip


@pytest.mark.slow
def test_draws_of_a_step_are_made_beforehand_and_handed_over_with_its_crops(
    images, tmp_path, monkeypatch
):
    makers, taken = [], []

    def make(*given):
        makers.append(threading.current_thread().name)
        return pieces(*given)

    def refuse(*_):
        raise AssertionError("made in the step")

    monkeypatch.setattr(loop, "pieces", make)
    monkeypatch.setattr(step, "pieces", refuse)
    monkeypatch.setattr(Beside, "take", lambda _, made, done: taken.append(made))
    config = override(SMALL, {**DRAWN, "steps": 2, "evaluation.every": 2})
    run(config, images, THERE, tmp_path)
    assert len(makers) == len(taken) == 2
    assert all(name.startswith("prefetch") for name in makers)
    # Crops of two sizes, digests, labels; of each part where [CLS] stands for the teacher; for the
    # student that and drop path of either size; masks of global crops and their places.
    assert [len(made) for made in taken] == [4 + 2 * (1 + 2 * 2 + 2)] * 2
    assert {one.device for made in taken for one in made} == {DEVICE}


@pytest.mark.slow
def test_between_logs_the_host_waits_once_a_step(images, tmp_path):
    quiet = override(SMALL, DRAWN)
    quiet = override(quiet, {"log_every": 100, "checkpoint_every": 100, "evaluation.every": 100})
    counted = []
    for steps in (2, 4):
        with pretending() as counts:
            run(override(quiet, {"steps": steps}), images, THERE, tmp_path / str(steps))
        counted.append(counts.waits)
    more = counted[1] - counted[0]
    print({line: count / 2 for line, count in more.items()})
    once = {line: 2 for line in more if line.startswith("trainers/training/step.py")}
    assert len(once) == 1
    assert dict(more) == once


@pytest.mark.slow
def test_a_chain_that_is_read_by_itself_would_be_caught(images, tmp_path, monkeypatch):
    def receive(self, tensor):
        return torch.stack([*tensor[:2].cpu(), *tensor[2:]]).cpu

    monkeypatch.setattr(World, "receive", receive)
    with pytest.raises(RuntimeError, match=r"same device.*stack"):
        run(override(SMALL, {"steps": 1}), images, THERE, tmp_path)
