"""What an evaluation measures and when, and that it looks at each image once."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from trainers.config import TrainConfig, override
from trainers.data.augment import evaluation_crops, normalize
from trainers.data.image_set import ImageSet
from trainers.evaluation.evaluate import evaluate
from trainers.evaluation.linear_probe import linear_right
from trainers.metrics import AT_THE_ENDS, EVALUATED, PROBED
from trainers.model.vit import Layer
from trainers.system.world import World
from trainers.training.state import TrainState

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)


def fresh(config: TrainConfig) -> TrainState:
    return TrainState.fresh(override(config, {"model.initial_deviation": 0.2}), ALONE)


def without_labels(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "labels", None)


def summaries(metrics: dict[str, float]) -> set[str]:
    """Names without those of single layers and heads."""
    return {name for name in metrics if "@" not in name}


def without_registers(names: Iterable[str]) -> set[str]:
    return {name for name in names if "register" not in name}


def test_every_described_metric_is_measured_and_every_measured_one_described(tiny, images):
    config = override(tiny, {"model.registers": 2})
    assert summaries(evaluate(fresh(config), images, config)) == set(EVALUATED)


def test_without_registers_only_what_is_about_them_is_missing(tiny, images):
    assert summaries(evaluate(fresh(tiny), images, tiny)) == without_registers(EVALUATED)


@pytest.mark.parametrize(("step", "probed"), [(0, True), (3, False), (6, True)])
def test_more_is_measured_at_the_first_and_at_the_last_step(tiny, images, step, probed):
    state = fresh(tiny)
    state.step = step
    expected = set(EVALUATED) if probed else set(EVALUATED) - set(AT_THE_ENDS)
    assert summaries(evaluate(state, images, tiny)) == without_registers(expected)


def test_probes_come_when_asked_for_and_never_when_the_configuration_has_none(tiny, images):
    state = fresh(tiny)
    state.step = 3
    assert set(PROBED) <= evaluate(state, images, tiny, thorough=True).keys()
    none = override(tiny, {"evaluation.probes": False})
    assert not set(PROBED) & evaluate(state, images, none, thorough=True).keys()


def test_probing_changes_no_other_metric(tiny, images):
    config = override(tiny, {"evaluation.globality_probe_images": 16})
    state = fresh(config)
    with_probes, without = (
        evaluate(state, images, config, thorough=each) for each in (True, False)
    )
    del with_probes["globality/undefined"], without["globality/undefined"]
    assert {name: with_probes[name] for name in without} == without


def test_without_labels_only_what_needs_them_is_missing(tiny, images, monkeypatch):
    without_labels(images, monkeypatch)
    found = summaries(evaluate(fresh(tiny), images, tiny))
    assert without_registers(EVALUATED) - found == {
        "knn/cls_top1",
        "knn/patch_top1",
        "knn/random_patch_top1",
        "knn/fixed_patch_top1",
        "gap/patch",
        "gap/random_patch",
        "linear_probe/cls_top1",
        "linear_probe/patch_top1",
    }


def test_without_a_cls_token_the_mean_patch_alone_is_classified(tiny, images):
    config = override(tiny, {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0})
    found = evaluate(fresh(config), images, config)
    classified = {name for name in found if name.startswith(("knn/", "linear_probe/"))}
    assert classified == {
        "knn/patch_top1",
        "knn/random_patch_top1",
        "knn/fixed_patch_top1",
        "linear_probe/patch_top1",
    }


@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_the_linear_probe_sees_the_last_blocks_through_the_last_norm(tiny, images, blocks):
    config = override(tiny, {"evaluation.linear_blocks": blocks, "evaluation.linear_penalty": 0.01})
    state = fresh(config)

    def features(places: Tensor) -> Tensor:
        squares = evaluation_crops(images.pixels(places), images.aspect(places), 16)
        backbone = state.teacher.backbone
        with torch.no_grad():
            layers: list[Layer] = []
            backbone(normalize(squares), observe=layers.append)
            outputs = [layer.tokens for layer in layers[-blocks:]]
            return torch.cat([backbone.norm(tokens)[:, 0] for tokens in outputs], dim=1)

    right = linear_right(
        [features(images.train)],
        images.labels[images.train],
        [features(images.test)],
        images.labels[images.test],
        penalty=0.01,
        world=ALONE,
    )
    found = evaluate(state, images, config)["linear_probe/cls_top1"]
    assert found == pytest.approx(right.double().mean().item(), abs=1.5 / len(images.test))


@pytest.mark.parametrize("labelled", [True, False])
def test_progress_rises_to_all_images(tiny, images, monkeypatch, labelled):
    if not labelled:
        without_labels(images, monkeypatch)
    seen = []
    evaluate(fresh(tiny), images, tiny, progress=lambda done, count: seen.append((done, count)))
    count = len(images) if labelled else len(images.test)
    assert {one[1] for one in seen} == {count}
    assert [one[0] for one in seen] == sorted({one[0] for one in seen})
    assert seen[-1] == (count, count)


def test_between_the_ends_the_teacher_looks_at_each_image_once(tiny, images, monkeypatch):
    state, looked_at = fresh(tiny), []
    state.step = 3
    forward = state.teacher.forward
    monkeypatch.setattr(
        state.teacher,
        "forward",
        lambda crops, *others, **options: (
            looked_at.append(len(crops)),
            forward(crops, *others, **options),
        )[1],
    )
    evaluate(state, images, tiny)
    assert sum(looked_at) == len(images)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 16, 100, 1000])
def test_the_batch_size_does_not_matter(tiny, images, batch_size):
    config = override(tiny, {"evaluation.batch_size": batch_size})
    expected = evaluate(fresh(tiny), images, tiny)
    for name, value in evaluate(fresh(config), images, config).items():
        tolerance = 0.01 if name in PROBED or name.startswith("knn/") else 1e-5
        assert value == pytest.approx(expected[name], rel=1e-4, abs=tolerance), name


def test_networks_train_again_afterwards(tiny, images):
    state = fresh(tiny)
    evaluate(state, images, tiny)
    assert state.student.training
    assert state.teacher.training
    assert all(parameter.grad is None for parameter in state.student.parameters())


def test_values_of_each_image_have_the_metric_as_their_mean(tiny, images):
    config = override(
        tiny,
        {"model.registers": 1, "evaluation.globality_images": 100, "evaluation.batch_size": 64},
    )
    by_image: dict[str, Tensor] = {}
    metrics = evaluate(fresh(config), images, config, by_image=by_image)
    assert metrics == evaluate(fresh(config), images, config)
    for name, values in by_image.items():
        group, *_ = name.split("/")
        count = {"student": 8, "reach": 2, "influence": 2}.get(group, 100)
        count = len(images.test) if group in ("knn", "gap", "linear_probe") else count
        assert values.shape == (count,), name
        assert values.dtype == torch.float32
        assert values.double().mean().item() == pytest.approx(metrics[name], rel=1e-6, abs=1e-6)
    gyration = by_image["globality/contrast/gyration"]
    assert gyration.unique().numel() > 90
    assert set(by_image["knn/cls_top1"].tolist()) == {0, 1}


OF_A_MEAN_MAP = ("positional_bias", "content_dependence")
"""Of the mean map over images: an image has a value only for queries that are few."""


def test_every_metric_that_is_one_of_images_is_kept_of_each(tiny, images):
    config = override(tiny, {"model.registers": 1})
    by_image: dict[str, Tensor] = {}
    metrics = evaluate(fresh(config), images, config, by_image=by_image)
    other = ("collapse/", "alignment/", "position_probe/", "mirrored/")
    left = {
        name
        for name in summaries(metrics) - set(by_image)
        if not name.startswith(other)
        and not name.endswith(("undefined", "head_max", "head_deviation"))
    }
    assert {name.split("/")[2] for name in left} == set(OF_A_MEAN_MAP)
    contrasts = {"contrast", "register_contrast", "fixed_patch_contrast"}
    assert {name.split("/")[1] for name in left} <= {"patch", *contrasts}
    assert {"shuffled/cls/positional_bias", "globality/register/content_dependence"} <= set(
        by_image
    )
    contrasts = {name for name in by_image if "/contrast/" in name}
    assert {"globality/contrast/gyration", "influence/contrast/gyration"} <= contrasts
