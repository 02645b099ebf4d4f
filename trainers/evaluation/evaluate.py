"""What is measured of the networks on held-out images: k-NN, probes, collapse panel, attention."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.data.augment import evaluation_crops, normalize
from trainers.data.image_set import ImageSet
from trainers.evaluation.collapse import MOST_IMAGES, collapse_panel, feature_panel
from trainers.evaluation.knn import gaps, knn_accuracy
from trainers.evaluation.linear_probe import linear_accuracy
from trainers.evaluation.position_probe import position_r2
from trainers.globality.alignment import Alignment
from trainers.globality.instruments import Instruments, Settings, of_first
from trainers.globality.statistics import AttentionStatistics
from trainers.method.site import sites
from trainers.model.head import ProjectionHead
from trainers.model.network import Network
from trainers.model.positions import patch_at
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws, evaluation_draws, keyed

Metrics = dict[str, float]
Progress = Callable[[int, int], None]
"""called with images done and all"""


class Trained(Protocol):
    """What is measured: the networks of a run, and how far it has come; a TrainState is one."""

    @property
    def step(self) -> int:
        """updates done"""

    @property
    def student(self) -> Network: ...

    @property
    def teacher(self) -> Network: ...

    @property
    def centers(self) -> Mapping[str, Tensor]:
        """of each site of the loss, the center [K] of the teacher's outputs"""


# A compiler would compile anew for each size of batch.
@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
@torch.no_grad()
def evaluate(
    state: Trained,
    images: ImageSet,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    thorough: bool | None = None,
) -> Metrics:
    """Every metric of the teacher, and of the student against it, by its name `group/name`.

    Each image goes through the teacher once, in float32. At step 0 and at the last step, or as
    `thorough` says, all instruments are used, and probes trained where the configuration has them.
    """
    knobs = config.evaluation
    if thorough is None:
        thorough = state.step in (0, config.steps)
    probe = thorough and knobs.probes
    networks = (state.student, state.teacher)
    for network in networks:
        network.eval()
    panel = _Panel(state, config)
    globality = Globality(state, config, thorough)
    classified = _Classified(state.teacher, config, probe)
    position: list[Tensor] = []
    test = images.shuffled(images.test)
    held_out, known = len(test), len(images.train) * (images.labels is not None)
    device = next(state.teacher.parameters()).device
    metrics: Metrics = {}

    done = 0
    for crops, draws, identifiers in batches(images, test, config, device):
        blocks = _Outputs(knobs.linear_blocks if probe and known else 0)
        output = state.teacher(crops, draws, observe=globality.observer(done, blocks))
        globality.see(crops, draws, identifiers, done)
        panel.see(output, crops, draws, done)
        if known:
            classified.see(output, blocks, identifiers)
        if probe and done < knobs.position_images:
            position.append(output.patches[: knobs.position_images - done])
        done += len(crops)
        if progress:
            progress(done, held_out + known)
    metrics |= panel.metrics() | globality.metrics()
    if probe:
        metrics |= position_r2(torch.cat(position), output.grid)
    if images.labels is not None:
        for crops, draws, identifiers in batches(images, images.train, config, device):
            blocks = _Outputs(knobs.linear_blocks if probe else 0)
            output = state.teacher(crops, draws, observe=blocks if probe else None)
            classified.see(output, blocks, identifiers)
            done += len(crops)
            if progress:
                progress(done, held_out + known)
        labels = images.labels.to(device)
        metrics |= classified.metrics(labels[test], labels[images.train])
    for network in networks:
        network.train()
    return metrics


def batches(
    images: ImageSet, places: Tensor, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Tensor, ForwardDraws, Tensor]]:
    """Unaugmented crops of the images at `places`, ready for a backbone, its draws, and int64 [B]
    that name the images."""
    grid = (config.augment.global_size // config.model.patch_size,) * 2
    for batch in places.split(config.evaluation.batch_size):
        crops = evaluation_crops(
            images.pixels(batch, device),
            images.aspect(batch).to(device),
            config.augment.global_size,
        )
        identifiers = images.identifiers[batch].to(device)
        draws = evaluation_draws(config.seed, identifiers, config.model, grid)
        yield normalize(crops), draws, identifiers


class _Outputs:
    """An observer that keeps the outputs of some last blocks, [B, T, D] each; none of 0 blocks."""

    def __init__(self, blocks: int) -> None:
        self.kept: deque[Tensor] = deque(maxlen=blocks)

    def __call__(self, layer: Layer) -> None:
        self.kept.append(layer.tokens)


class _Classified:
    """k-NN and linear probe of held-out images, on each token that could stand for an image.

    Images come held-out ones first. Kept are, of each site, the features of the last blocks
    [n, blocks, D], each through the last norm; of the last block alone when nothing is probed.
    """

    def __init__(self, teacher: Network, config: TrainConfig, probe: bool) -> None:
        self.norm = teacher.backbone.norm
        self.config = config
        self.probe = probe
        self.features: dict[str, list[Tensor]] = {}

    def see(self, output: Features, blocks: _Outputs, identifiers: Tensor) -> None:
        layers = [output.tokens]
        if self.probe:
            earlier = list(blocks.kept)[:-1]
            layers = [*(self.norm(tokens) for tokens in earlier), output.tokens]
        for token, place in self._places(output, identifiers).items():
            kept = self.features.setdefault(token, [])
            kept.append(torch.stack([place(tokens) for tokens in layers], dim=1))

    def _places(
        self, output: Features, identifiers: Tensor
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """Of each name, how its vector [B, D] is read from tokens [B, T, D]."""
        first = output.first
        rows = torch.arange(len(identifiers), device=identifiers.device)
        zeros = torch.zeros_like(identifiers)
        source = keyed(self.config.seed, "random patch/evaluation", identifiers, zeros, range(1))
        patches = output.tokens.shape[1] - first
        chance = first + (source.uniform(1)[:, 0] * patches).long()
        places: dict[str, Callable[[Tensor], Tensor]] = {
            "patch": lambda tokens: tokens[:, first:].mean(1),
            "random_patch": lambda tokens: tokens[rows, chance],
        }
        fixed = first + patch_at(self.config.loss.fixed_patch_place, output.grid)
        places["fixed_patch"] = lambda tokens: tokens[:, fixed]
        if output.has_cls:
            places["cls"] = lambda tokens: tokens[:, 0]
        if output.registers_count:
            places["register"] = lambda tokens: tokens[:, int(output.has_cls)]
        return places

    def metrics(self, asked: Tensor, known: Tensor) -> Metrics:
        """By the labels of held-out and of training images."""
        knobs = self.config.evaluation
        metrics: Metrics = {}
        for name, features in self.features.items():
            queries, bank = torch.cat(features).split([len(asked), len(known)])
            metrics[f"knn/{name}_top1"] = knn_accuracy(
                bank[:, -1],
                known,
                queries[:, -1],
                asked,
                neighbours=knobs.knn_neighbours,
                temperature=knobs.knn_temperature,
            )
            if self.probe and name in ("cls", "patch"):
                metrics[f"linear_probe/{name}_top1"] = linear_accuracy(
                    bank.flatten(1),
                    known,
                    queries.flatten(1),
                    asked,
                    penalty=knobs.linear_penalty,
                )
        return metrics | gaps(metrics)


class _Panel:
    """The collapse panel on held-out images, at the site of the loss that weighs most.

    Where every patch has its own output, one fixed patch stands for the image; where there is no
    self-distillation, only features are looked at.
    """

    def __init__(self, state: Trained, config: TrainConfig) -> None:
        found = sites(config.loss)
        self.loudest = max(found, key=lambda name: found[name].weight) if found else ""
        self.image = found[self.loudest].image if found else _image
        self.each_patch = bool(found) and found[self.loudest].each_patch
        self.state, self.config = state, config
        self.features: list[Tensor] = []
        self.teacher_logits: list[Tensor] = []
        self.student_logits: list[Tensor] = []

    def see(self, output: Features, crops: Tensor, draws: ForwardDraws, done: int) -> None:
        """Take what the teacher makes of `crops`, after `done` images."""
        if done >= MOST_IMAGES:
            return
        self.features.append(self.image(output))
        if self.loudest:
            student = self.state.student
            seen = self.image(student(crops, draws))
            self.teacher_logits.append(self._head(self.state.teacher)(self.features[-1]))
            self.student_logits.append(self._head(student)(seen))

    def _head(self, network: Network) -> ProjectionHead:
        return network.head_of(each_patch=self.each_patch)

    def metrics(self) -> Metrics:
        if not self.loudest:
            return feature_panel(torch.cat(self.features))
        return collapse_panel(
            torch.cat(self.teacher_logits),
            torch.cat(self.student_logits),
            torch.cat(self.features),
            teacher_temperature=self.config.targets.temperature_of(each_patch=self.each_patch),
            student_temperature=self.config.loss.student_temperature,
            center=self.state.centers[self.loudest],
        )


def _image(features: Features) -> Tensor:
    return features.image


class Globality:
    """Globality of the teacher, and the attention of the student against it.

    All instruments on up to `globality_images` when the evaluation is thorough; else attention
    alone, on the first `globality_probe_images`. The student's always on those.
    """

    def __init__(self, state: Trained, config: TrainConfig, thorough: bool) -> None:
        knobs, model = config.evaluation, config.model
        grid = (config.augment.global_size // model.patch_size,) * 2
        device = next(state.teacher.parameters()).device
        self.thorough = thorough
        self.primary = knobs.globality_layers
        self.student = state.student
        self.probe_images = knobs.globality_probe_images
        self.most = knobs.globality_images if thorough else self.probe_images
        self.instruments = Instruments(
            state.teacher,
            grid,
            has_cls=model.cls,
            registers=model.registers,
            fixed_patch=patch_at(config.loss.fixed_patch_place, grid),
            device=device,
            settings=Settings(
                memory=knobs.attention_memory,
                patch_queries=knobs.patch_queries,
                causal_images=knobs.causal_images,
                replacement=knobs.replacement,
                seed=config.seed,
            ),
        )
        tokens, memory = self.instruments.tokens, knobs.attention_memory
        self.attention = AttentionStatistics(tokens, memory=memory)
        self.of_student = AttentionStatistics(tokens, memory=memory, group="student")
        self.alike = Alignment(tokens)

    def observer(self, done: int, *others: Observer) -> Observer:
        """For the teacher's pass over the images after the first `done`."""
        left = self.most - done
        if left <= 0:
            return of_first(None, *others)
        mine: Observer = self.attention
        if self.thorough:
            mine = of_first(None, self.instruments.observer(), self.alike)
        return of_first(None, of_first(left, mine), *others)

    def see(self, crops: Tensor, draws: ForwardDraws, identifiers: Tensor, done: int) -> None:
        """The images that the teacher was just observed on."""
        left = self.most - done
        if self.thorough and left > 0:
            some = torch.arange(min(left, len(crops)), device=crops.device)
            self.instruments.see(crops[some], draws.rows(some), identifiers[some])
        left = self.probe_images - done
        if left > 0:
            some = torch.arange(min(left, len(crops)), device=crops.device)
            self.student(crops[some], draws.rows(some), observe=self.of_student)

    def metrics(self) -> Metrics:
        """By name; each layer and head of the teacher's attention too."""
        total = self.instruments.total() if self.thorough else self.attention.total
        total = total.merge(self.of_student.total)
        return total.metrics(self.primary, by_head=("globality",)) | self.alike.metrics()
