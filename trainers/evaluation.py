"""What is measured of the networks on held-out images: k-NN, probes, collapse panel, attention."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainers.augment import evaluation_crops, normalize
from trainers.config import TrainConfig
from trainers.data.image_set import ImageSet
from trainers.evals.collapse import MOST_IMAGES, collapse_panel, feature_panel
from trainers.evals.knn import knn_accuracy
from trainers.evals.linear_probe import linear_accuracy
from trainers.evals.position_probe import position_r2
from trainers.forward_draws import ForwardDraws, keyed, wandering_cls
from trainers.globality.statistics import Accumulator, measure_attention
from trainers.sites import EACH_PATCH, feature_site, read_out, sites
from trainers.state import Network, TrainState
from trainers.vit import Features

Metrics = dict[str, float]
Progress = Callable[[int, int], None]
"""called with images done and all"""


# A compiler would compile anew for each size of batch.
@torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
@torch.no_grad()
def evaluate(
    state: TrainState,
    images: ImageSet,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    probe: bool | None = None,
) -> Metrics:
    """Every metric of the teacher, and of the student against it, by its name `group/name`.

    Each image goes through the teacher once, in float32. Probes are trained where the
    configuration has them, at step 0 and at its last step, or as `probe` says.
    """
    if probe is None:
        probe = state.step in (0, config.steps)
    probe = probe and config.evaluation.probes
    networks = (state.student, state.teacher)
    for network in networks:
        network.eval()
    panel = _Panel(state, config)
    attention = _Attention(config)
    classified = _Classified(state.teacher, config, probe)
    position: list[Tensor] = []
    held_out, known = len(images.test), len(images.train) * (images.labels is not None)
    device = next(state.teacher.parameters()).device
    metrics: Metrics = {}

    done = 0
    for crops, draws in _batches(images, images.test, config, device):
        looked_at = attention.wants(done)
        output = state.teacher(crops, draws, observe=looked_at or (probe and known > 0))
        if looked_at:
            attention.see(output, done)
        panel.see(output, crops, draws, done)
        if known:
            classified.see(output)
        if probe and done < config.evaluation.position_images:
            position.append(output.patches[: config.evaluation.position_images - done])
        done += len(crops)
        if progress:
            progress(done, held_out + known)
    metrics |= panel.metrics() | attention.metrics()
    if probe:
        metrics |= position_r2(torch.cat(position), output.grid)
    if images.labels is not None:
        for crops, draws in _batches(images, images.train, config, device):
            classified.see(state.teacher(crops, draws, observe=probe))
            done += len(crops)
            if progress:
                progress(done, held_out + known)
        labels = images.labels.to(device)
        metrics |= classified.metrics(labels[images.test], labels[images.train])
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
            images.pixels(batch, device),
            images.aspect(batch).to(device),
            config.augment.global_size,
        )
        identifiers = images.identifiers[batch].to(device)
        never = torch.zeros_like(identifiers)
        source = keyed(config.seed, "cls position/evaluation", identifiers, never, range(1))
        yield normalize(crops), ForwardDraws(cls_patch=wandering_cls(source, config.model, grid))


class _Classified:
    """k-NN and linear probe of held-out images, on [CLS] and on the mean patch token.

    Images come held-out ones first. Kept are, of each site, the features of the last blocks
    [n, blocks, D], each through the last norm; of the last block alone when nothing is probed.
    """

    def __init__(self, teacher: Network, config: TrainConfig, probe: bool) -> None:
        self.norm = teacher.backbone.norm
        self.knobs = config.evaluation
        self.probe = probe
        self.names = (
            {"cls": "cls", "patches": "patch"} if config.model.cls else {"patches": "patch"}
        )
        self.features: dict[str, list[Tensor]] = {site: [] for site in self.names}

    def see(self, output: Features) -> None:
        layers = [output.tokens]
        if self.probe:
            earlier = output.blocks[-self.knobs.linear_blocks : -1]
            layers = [*(self.norm(tokens) for tokens in earlier), output.tokens]
        for site, kept in self.features.items():
            if site == "cls":
                kept.append(torch.stack([tokens[:, 0] for tokens in layers], dim=1))
            else:
                first = output.first
                kept.append(torch.stack([tokens[:, first:].mean(1) for tokens in layers], dim=1))

    def metrics(self, asked: Tensor, known: Tensor) -> Metrics:
        """By the labels of held-out and of training images."""
        metrics: Metrics = {}
        for site, name in self.names.items():
            queries, bank = torch.cat(self.features[site]).split([len(asked), len(known)])
            metrics[f"knn/{name}_top1"] = knn_accuracy(
                bank[:, -1],
                known,
                queries[:, -1],
                asked,
                neighbours=self.knobs.knn_neighbours,
                temperature=self.knobs.knn_temperature,
            )
            if self.probe:
                metrics[f"linear_probe/{name}_top1"] = linear_accuracy(
                    bank.flatten(1),
                    known,
                    queries.flatten(1),
                    asked,
                    penalty=self.knobs.linear_penalty,
                )
        return metrics


class _Panel:
    """The collapse panel on held-out images, at the site of the loss that weighs most.

    Where every patch has its own output, one fixed patch stands for the image; where there is no
    self-distillation, only features are looked at.
    """

    def __init__(self, state: TrainState, config: TrainConfig) -> None:
        weights = sites(config.loss)
        self.loudest = max(weights, key=lambda name: weights[name]) if weights else ""
        each_patch = self.loudest in EACH_PATCH
        self.site = "fixed_patch" if each_patch else self.loudest or feature_site(config)
        self.state, self.config = state, config
        self.features: list[Tensor] = []
        self.teacher_logits: list[Tensor] = []
        self.student_logits: list[Tensor] = []

    def see(self, output: Features, crops: Tensor, draws: ForwardDraws, done: int) -> None:
        """Take what the teacher makes of `crops`, after `done` images."""
        if done >= MOST_IMAGES:
            return
        self.features.append(read_out(output, self.site, self.config.loss))
        if self.loudest:
            student = self.state.student
            seen = read_out(student(crops, draws), self.site, self.config.loss)
            self.teacher_logits.append(self.state.teacher.head(self.features[-1]))
            self.student_logits.append(student.head(seen))

    def metrics(self) -> Metrics:
        if not self.loudest:
            return feature_panel(torch.cat(self.features))
        return collapse_panel(
            torch.cat(self.teacher_logits),
            torch.cat(self.student_logits),
            torch.cat(self.features),
            teacher_temperature=self.config.targets.temperature,
            student_temperature=self.config.loss.student_temperature,
            center=self.state.centers[self.loudest],
        )


class _Attention:
    """Attention statistics of the first held-out images, per block and head and summarised."""

    def __init__(self, config: TrainConfig) -> None:
        self.knobs = config.evaluation
        self.total: Accumulator | None = None

    def wants(self, done: int) -> bool:
        """Whether the images after the first `done` are looked at."""
        return done < self.knobs.globality_images

    def see(self, output: Features, done: int) -> None:
        """Take observed features, after `done` images."""
        left = self.knobs.globality_images - done
        part = measure_attention(
            [(queries[:left], keys[:left]) for queries, keys in output.queries_keys],
            output.grid,
            self.knobs.query_chunk,
            has_cls=output.has_cls,
            registers=output.registers_count,
        )
        self.total = part if self.total is None else self.total.merge(part)

    def metrics(self) -> Metrics:
        assert self.total is not None
        return self.total.metrics(self.knobs.globality_layers)
