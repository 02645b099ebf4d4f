"""What is measured of the networks on held-out images: k-NN, collapse panel, attention."""

from collections.abc import Iterator

import torch
from torch import Tensor

from trainers.augment import evaluation_crops, normalize
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.evals.collapse import collapse_panel
from trainers.evals.knn import knn_accuracy
from trainers.globality.statistics import Accumulator, measure_attention
from trainers.state import Network, TrainState, read_out, sites

Metrics = dict[str, float]


@torch.no_grad()
def evaluate(state: TrainState, images: ImageSet, config: TrainConfig) -> Metrics:
    """Every metric of the teacher, and of the student against it, by its name `group/name`."""
    device = next(state.teacher.parameters()).device
    metrics = _collapse(state, images, config, device)
    metrics |= _attention(state.teacher, images, config, device)
    if images.labels is not None:
        metrics |= _nearest_neighbours(state.teacher, images, config, device)
    return metrics


def _batches(
    images: ImageSet, places: Tensor, config: TrainConfig, device: torch.device
) -> Iterator[Tensor]:
    """Unaugmented crops of the images at `places`, ready for a backbone."""
    for batch in places.split(config.evaluation.batch_size):
        crops = evaluation_crops(
            images.pixels(batch).to(device),
            images.aspect(batch).to(device),
            config.augment.global_size,
        )
        yield normalize(crops)


def _nearest_neighbours(
    teacher: Network, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """k-NN of held-out images among the training ones, on [CLS] and on the mean patch token."""
    assert images.labels is not None
    features: dict[str, list[Tensor]] = {"cls": [], "patches": []}
    places = torch.cat([images.train, images.test])
    for batch in _batches(images, places, config, device):
        output = teacher(batch)
        for site, parts in features.items():
            parts.append(read_out(output, site))
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
        for site, name in (("cls", "cls"), ("patches", "patch"))
    }


def _collapse(
    state: TrainState, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """The collapse panel on held-out images, at the site of the loss that weighs most."""
    weights = sites(config.loss)
    site = max(weights, key=lambda name: weights[name])
    features, teacher_logits, student_logits = [], [], []
    for batch in _batches(images, images.test, config, device):
        features.append(read_out(state.teacher(batch), site))
        teacher_logits.append(state.teacher.head(features[-1]))
        student_logits.append(state.student.head(read_out(state.student(batch), site)))
    return collapse_panel(
        torch.cat(teacher_logits),
        torch.cat(student_logits),
        torch.cat(features),
        teacher_temperature=config.targets.temperature,
        student_temperature=config.loss.student_temperature,
        center=state.centers[site],
    )


def _attention(
    teacher: Network, images: ImageSet, config: TrainConfig, device: torch.device
) -> Metrics:
    """Attention statistics of the first held-out images, per block and head and summarised."""
    knobs = config.evaluation
    total: Accumulator | None = None
    for batch in _batches(images, images.test[: knobs.globality_images], config, device):
        output = teacher(batch)
        part = measure_attention(output.queries_keys, output.grid, knobs.query_chunk)
        total = part if total is None else total.merge(part)
    assert total is not None
    return total.metrics(knobs.globality_layers)
