"""A ViT measured by itself gives what a run records, however it is cut and computed."""

import dataclasses

import pytest
import torch

from trainers.adapters.opening import open_measurable
from trainers.config import DataConfig, override
from trainers.data.augment import evaluation_crops, normalize
from trainers.data.image_set import open_images
from trainers.errors import InputError
from trainers.evaluation.evaluate import evaluate
from trainers.globality.cls_maps import QueryMaps
from trainers.globality.functionals import gyration
from trainers.globality.instruments import Settings
from trainers.globality.measurement import Plan, check_layers, choose, measure
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)


def plan(model, images, size, limit=6, causal=3, batch=4, **options):
    places, part = choose(images, limit, **options)
    return Plan(
        places=places,
        part=part,
        size=size,
        grid=model.grid(size),
        primary=model.primary_layers(),
        batch_size=batch,
        settings=Settings(
            memory=1.0, patch_queries=64, causal_images=causal, replacement="mean"
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run folder of an untrained network, its weights shaken, and its state."""
    folder = tmp_path_factory.mktemp("run")
    config = override(tiny, {"evaluation.globality_images": 1000, "evaluation.probes": False})
    state = TrainState.fresh(config, ALONE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in state.teacher.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    checkpoint.save(state, config, folder, ALONE)
    (folder / "config.json").write_text(config.model_dump_json())
    return folder, config, state


def test_a_run_measured_by_itself_has_the_globality_that_it_records(run, images):
    folder, config, state = run
    torch.set_num_threads(1)
    model = open_measurable(str(folder))
    made = plan(model, images, 16, limit=10_000, causal=0, batch=64, trained_on_them=True)
    assert len(made.places) == len(images.test)
    found = measure(model, images, made, CPU).metrics
    recorded = evaluate(state, images, config, thorough=True)
    groups = ("globality/", "norm_weighted/", "rollout/", "shuffled/", "mirrored/")
    shared = {name for name in recorded if name.startswith(groups)} & found.keys()
    assert len(shared) > 150
    for name in shared:
        assert found[name] == pytest.approx(recorded[name], abs=1e-5), name


def test_batches_and_memory_change_nothing(run, images):
    model = open_measurable(str(run[0]))
    found = []
    for batch, memory in ((1, 0.001), (6, 100.0)):
        made = plan(model, images, 16, batch=batch)
        made = dataclasses.replace(
            made, settings=dataclasses.replace(made.settings, memory=memory)
        )  # fmt: skip
        found.append(measure(model, images, made, CPU))
    assert found[0].metrics.keys() == found[1].metrics.keys()
    for name, value in found[0].metrics.items():
        assert found[1].metrics[name] == pytest.approx(value, abs=1e-4, nan_ok=True), name
    torch.testing.assert_close(found[0].maps.influence, found[1].maps.influence, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_fused_attention_gives_what_plain_attention_gives(images):
    timm_layers = pytest.importorskip("timm.layers")
    found = []
    for fused in (True, False):
        timm_layers.set_fused_attn(fused)
        try:
            model = open_measurable("vit_tiny_patch16_224", seed=3)
        finally:
            timm_layers.set_fused_attn(True)
        assert model.network.model.blocks[0].attn.fused_attn is fused
        with torch.no_grad():
            for block in model.network.model.blocks:
                block.attn.qkv.weight.mul_(3)
        found.append(measure(model, images, plan(model, images, 48, causal=0), CPU).metrics)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("causal", [0, 1, 2, 5])
def test_progress_ends_at_what_it_said_at_first(run, images, causal):
    model = open_measurable(str(run[0]))
    seen = []
    measure(
        model,
        images,
        plan(model, images, 16, causal=causal),
        CPU,
        lambda done, total: seen.append((done, total)),
    )
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_maps_of_a_query_are_those_that_are_measured(run, images):
    model = open_measurable(str(run[0]))
    made = plan(model, images, 16, limit=5, causal=0)
    found = measure(model, images, made, CPU)
    for layer, maps in enumerate(found.maps.attention, start=1):
        assert torch.allclose(maps.sum(-1), torch.ones(5, maps.shape[1]), atol=1e-5)
        spread = gyration(maps, made.grid, None).mean(0)
        for head, value in enumerate(spread.tolist(), start=1):
            name = f"globality/cls/gyration@{layer}.{head}"
            assert found.metrics[name] == pytest.approx(value, abs=1e-5)
    assert found.maps.influence is None
    assert found.maps.query == "[CLS]"


def test_a_patch_query_does_not_count_itself(run, images):
    _, _, state = run
    crops = normalize(
        evaluation_crops(images.pixels(torch.arange(2)), images.aspect(torch.arange(2)), 16)
    )
    seen = QueryMaps(query=3, first=1)
    with torch.no_grad():
        state.teacher(crops, observe=seen)
    assert all((maps[..., 2] == 0).all() for maps in seen.kept)


def test_images_are_chosen_by_name_and_held_out_where_there_is_a_split(images):
    few, part = choose(images, 5)
    more, _ = choose(images, 50)
    assert more[:5].tolist() == few.tolist() != list(range(5))
    assert part == f"{len(images)} images"
    held, part = choose(images, 10_000, trained_on_them=True)
    assert sorted(held.tolist()) == images.test.tolist()
    assert part == f"{len(images.test)} held-out images"
    larger = open_images(DataConfig(image_size=24), None)
    assert choose(larger, 5)[0].tolist() == few.tolist()


def test_layers_must_be_blocks_of_the_model():
    assert check_layers([8, 7, 8], 12) == (7, 8)
    for wrong in ([0, 3], [13], []):
        with pytest.raises(InputError, match="layers must be blocks 1 to 12"):
            check_layers(wrong, 12)
