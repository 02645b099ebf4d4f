"""What is measured of the networks on held-out images: k-NN, collapse panel, attention."""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainers.augment import evaluation_crops, normalize
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.evals.collapse import collapse_panel, feature_panel
from trainers.evals.knn import knn_accuracy
from trainers.forward_draws import ForwardDraws, keyed, wandering_cls
from trainers.globality.statistics import Accumulator, measure_attention
from trainers.sites import EACH_PATCH, feature_site, read_out, sites
from trainers.state import Network, TrainState

Metrics = dict[str, float]


@torch.no_grad()
def evaluate(state: TrainState, images: ImageSet, config: TrainConfig) -> Metrics:
    """Every metric of the teacher, and of the student against it, by its name `group/name`."""
    device = next(state.teacher.parameters()).device
    networks = (state.student, state.teacher)
    for network in networks:
        network.eval()
    metrics = _collapse(state, images, config, device)
    metrics |= _attention(state.teacher, images, config, device)
    if images.labels is not None:
        metrics |= _nearest_neighbours(state.teacher, images, config, device)
    for network in networks:
        network.train()
    return metrics


def _batches(
    images: ImageSet, places: Tensor, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Tensor, ForwardDraws]]:
    """Unaugmented crops of the images at `places`, ready for a backbone, and its draws."""
    grid = (config.augment.global_size // config.model.patch_size,) * 2
    for batch in places.split(config.evaluation.batch_size):
        crops = evaluation_crops(
            images.pixels(batch).to(device),
            images.aspect(batch).to(device),
            config.augment.global_size,
        )
        identifiers = images.identifiers[batch].to(device)
        never = torch.zeros_like(identifiers)
        source = keyed(config.seed, "cls position/evaluation", identifiers, never, range(1))
        yield normalize(crops), ForwardDraws(cls_patch=wandering_cls(source, config.model, grid))


def _nearest_neighbours(
    teacher: Network, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """k-NN of held-out images among the training ones, on [CLS] and on the mean patch token."""
    assert images.labels is not None
    names = {"cls": "cls", "patches": "patch"}
    if not config.model.cls:
        del names["cls"]
    features: dict[str, list[Tensor]] = {site: [] for site in names}
    places = torch.cat([images.train, images.test])
    for crops, draws in _batches(images, places, config, device):
        output = teacher(crops, draws)
        for site, parts in features.items():
            parts.append(read_out(output, site, config.loss))
    labels = images.labels.to(device)
    known = len(images.train)
    return {
        f"knn/{name}_top1": knn_accuracy(
            torch.cat(features[site])[:known],
            labels[images.train],
            torch.cat(features[site])[known:],
            labels[images.test],
            neighbours=config.evaluation.knn_neighbours,
            temperature=config.evaluation.knn_temperature,
        )
        for site, name in names.items()
    }


def _collapse(
    state: TrainState, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """The collapse panel on held-out images, at the site of the loss that weighs most.

    Where every patch has its own output, one fixed patch stands for the image; where there is no
    self-distillation, only features are looked at.
    """
    weights = sites(config.loss)
    loudest = max(weights, key=lambda name: weights[name]) if weights else ""
    site = "fixed_patch" if loudest in EACH_PATCH else loudest or feature_site(config)
    features, teacher_logits, student_logits = [], [], []
    for crops, draws in _batches(images, images.test, config, device):
        features.append(read_out(state.teacher(crops, draws), site, config.loss))
        if loudest:
            seen = read_out(state.student(crops, draws), site, config.loss)
            teacher_logits.append(state.teacher.head(features[-1]))
            student_logits.append(state.student.head(seen))
    if not loudest:
        return feature_panel(torch.cat(features))
    return collapse_panel(
        torch.cat(teacher_logits),
        torch.cat(student_logits),
        torch.cat(features),
        teacher_temperature=config.targets.temperature,
        student_temperature=config.loss.student_temperature,
        center=state.centers[loudest],
    )


def _attention(
    teacher: Network, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """Attention statistics of the first held-out images, per block and head and summarised."""
    knobs = config.evaluation
    total: Accumulator | None = None
    for crops, draws in _batches(images, images.test[: knobs.globality_images], config, device):
        output = teacher(crops, draws, observe=True)
        part = measure_attention(
            output.queries_keys,
            output.grid,
            knobs.query_chunk,
            has_cls=output.has_cls,
            registers=output.registers_count,
        )
        total = part if total is None else total.merge(part)
    assert total is not None
    return total.metrics(knobs.globality_layers)
