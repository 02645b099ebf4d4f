"""What is measured of the networks on held-out images: k-NN, probes, collapse panel, attention."""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.data.augment import evaluation_crops, normalize
from trainers.data.image_set import ImageSet
from trainers.errors import DivergedError
from trainers.evaluation.classification import TokenFeatures, classification
from trainers.evaluation.cls_maps import ClsMaps, shown_pixels
from trainers.evaluation.collapse import MOST_IMAGES, OutputSums, feature_panel, output_panel
from trainers.evaluation.position_probe import position_r2
from trainers.globality.accumulator import Accumulator
from trainers.globality.alignment import Alignment
from trainers.globality.by_image import ImageSums
from trainers.globality.causal import measure_causes
from trainers.globality.instruments import Instruments, Settings, of_first
from trainers.globality.statistics import AttentionStatistics
from trainers.method.site import sites
from trainers.model.head import ProjectionHead
from trainers.model.network import Network
from trainers.model.positions import patch_at
from trainers.model.vit import Features, Layer, Observer
from trainers.randomness.forward_draws import ForwardDraws, evaluation_draws
from trainers.system.numbers import measuring
from trainers.system.world import World

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


def evaluate(
    state: Trained,
    images: ImageSet,
    config: TrainConfig,
    *,
    world: World | None = None,
    progress: Progress | None = None,
    thorough: bool | None = None,
    by_image: dict[str, Tensor] | None = None,
    maps: dict[str, Tensor] | None = None,
) -> Metrics:
    """Every metric of the teacher, and of the student against it, by its name `group/name`.

    Each image goes through the teacher once, in float32. At step 0 and at the last step, or as
    `thorough` says, all instruments are used, and probes trained where the configuration has them.
    All workers of `world`, each with networks that it can use alone, share the work and return the
    same; without it this one does all.

    `by_image` is given the metrics that are means over images, by name, of each image: float32
    [n], the first n held-out images in the order of `ImageSet.shuffled`. `maps` is given what
    `ClsMaps.of_all` has of the first `evaluation.map_images` of them, and at step 0
    `pixels`, uint8 [b, S, S, 3]; nothing where there are to be no maps.

    Raises DivergedError, on every worker, where what the networks make of images is not finite.
    """
    with measuring(tf32=config.evaluation.tf32), _uncompiled():
        return _evaluate(state, images, config, world, progress, thorough, by_image, maps)


def _uncompiled() -> contextlib.AbstractContextManager[object]:
    """A compiler would compile anew for each size of batch."""
    # One that is not loaded compiles nothing, and takes seconds to load.
    is_loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if is_loaded else contextlib.nullcontext()


@torch.no_grad()
def _evaluate(
    state: Trained,
    images: ImageSet,
    config: TrainConfig,
    world: World | None,
    progress: Progress | None,
    thorough: bool | None,
    by_image: dict[str, Tensor] | None,
    maps: dict[str, Tensor] | None,
) -> Metrics:
    knobs = config.evaluation
    if thorough is None:
        thorough = state.step in (0, config.steps)
    probe = thorough and knobs.probes
    networks = (state.student, state.teacher)
    for network in networks:
        network.eval()
    device = next(state.teacher.parameters()).device
    world = world or World(rank=0, size=1, device=device)
    test = images.shuffled(images.test)
    held_out, known = len(test), len(images.train) * (images.labels is not None)
    panel = _Panel(state, config)
    shows = maps is not None and knobs.map_images > 0
    globality = Globality(state, config, thorough, by_image, shows=shows)
    asked, bank = (TokenFeatures(state.teacher, config, probe, device) for _ in range(2))
    position: list[Tensor] = []

    for done, (crops, draws, identifiers) in _in_turn(images, test, config, world, device):
        blocks = _Outputs(knobs.linear_blocks if probe and known else 0)
        output = state.teacher(crops, draws, observe=globality.observer(done, blocks))
        globality.see(crops, draws, identifiers, done)
        panel.see(output, crops, draws, done)
        if known:
            asked.see(output, list(blocks.kept), identifiers)
        if probe and done < knobs.position_images:
            # A copy: a view would keep the whole batch.
            position.append(output.patches[: knobs.position_images - done].clone())
        if progress:
            progress(done + len(crops), held_out + known)
    metrics = panel.metrics(world) | globality.metrics(images, test, world)
    if maps is not None and globality.shown is not None:
        maps |= globality.shown.of_all(held_out, world)
        # Every run has that step, however it ends.
        if state.step == 0:
            some = test[: knobs.map_images]
            maps["pixels"] = shown_pixels(images, some, config.augment.global_size)
    if probe:
        tokens = torch.cat(list(world.in_turn(position)))
        grid = config.augment.global_size // config.model.patch_size
        metrics |= position_r2(tokens, (grid, grid))
    if images.labels is not None:
        for done, (crops, draws, identifiers) in _in_turn(
            images, images.train, config, world, device
        ):
            blocks = _Outputs(knobs.linear_blocks if probe else 0)
            output = state.teacher(crops, draws, observe=blocks if probe else None)
            bank.see(output, list(blocks.kept), identifiers)
            if progress:
                progress(held_out + done + len(crops), held_out + known)
        labels = images.labels.to(device)
        metrics |= classification(
            asked, bank, labels[test], labels[images.train], config, world, by_image
        )
    for network in networks:
        network.train()
    # Workers' own last bits may differ; what is decided by a metric must be decided alike.
    return world.told(metrics)


def _in_turn(
    images: ImageSet, places: Tensor, config: TrainConfig, world: World, device: torch.device
) -> Iterator[tuple[int, tuple[Tensor, ForwardDraws, Tensor]]]:
    """This worker's `batches`, each with the number of images before it.

    Workers take batches in turn, and each waits until all have done theirs: so none waits for
    longer than a batch takes, however many there are, and the batches are those of one worker.
    """
    parts = places.split(config.evaluation.batch_size)
    for place in range(world.rank, len(parts) + world.rank, world.size):
        if place < len(parts):
            for batch in batches(images, parts[place], config, device):
                yield place * config.evaluation.batch_size, batch
        world.wait()


def batches(
    images: ImageSet, places: Tensor, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Tensor, ForwardDraws, Tensor]]:
    """Unaugmented crops of the images at `places`, ready for a backbone, its draws, and int64 [B]
    that name the images."""
    grid = (config.augment.global_size // config.model.patch_size,) * 2
    for batch in places.split(config.evaluation.batch_size):
        crops = evaluation_crops(
            images.pixels(batch, device),
            images.aspect(batch),
            config.augment.global_size,
            device,
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
        self.state = state
        self.features: list[Tensor] = []
        self.outputs: OutputSums | None = None
        if found:
            self.outputs = OutputSums(
                teacher_temperature=config.targets.temperature_of(each_patch=self.each_patch),
                student_temperature=config.loss.student_temperature,
                center=state.centers[self.loudest],
            )

    def see(self, output: Features, crops: Tensor, draws: ForwardDraws, done: int) -> None:
        """Take what the teacher makes of `crops`, after `done` images."""
        left = MOST_IMAGES - done
        if left <= 0:
            return
        features = self.image(output)
        # Not a view, which would keep all tokens of the batch.
        self.features.append(features[:left].clone())
        if self.outputs:
            student = self.state.student
            seen = self._head(student)(self.image(student(crops, draws)))
            taught = self._head(self.state.teacher)(features)
            self.outputs.see(taught[:left], seen[:left])

    def _head(self, network: Network) -> ProjectionHead:
        return network.head_of(each_patch=self.each_patch)

    def metrics(self, world: World) -> Metrics:
        """By name, of what all workers of `world` saw in turn.

        Raises DivergedError, on all of them, where that is not finite.
        """
        metrics = {}
        features = torch.cat(list(world.in_turn(self.features)))
        _refuse_not_finite(features, "the teacher's features")
        if self.outputs:
            sums = torch.cat(list(world.in_turn(self.outputs.kept)))
            _refuse_not_finite(sums, "outputs")
            metrics = output_panel(sums)
        return metrics | feature_panel(features)


def _refuse_not_finite(values: Tensor, what: str) -> None:
    if not values.isfinite().all():
        raise DivergedError(f"{what} are not finite")


def _image(features: Features) -> Tensor:
    return features.image


class Globality:
    """Globality of the teacher, and the attention of the student against it.

    All instruments on up to `globality_images` when the evaluation is thorough; else attention
    alone, on the first `globality_probe_images`. The student's always on those. `by_image` is given
    values of each image. With `shows`, `shown` has maps of a few images.
    """

    def __init__(
        self,
        state: Trained,
        config: TrainConfig,
        thorough: bool,
        by_image: dict[str, Tensor] | None = None,
        *,
        shows: bool = False,
    ) -> None:
        knobs, model = config.evaluation, config.model
        self.config = config
        grid = (config.augment.global_size // model.patch_size,) * 2
        device = next(state.teacher.parameters()).device
        self.thorough = thorough
        self.primary = knobs.globality_layers
        self.student = state.student
        self.probe_images = knobs.globality_probe_images
        self.most = knobs.globality_images if thorough else self.probe_images
        self.by_image = by_image
        self.of_images = None
        if by_image is not None:
            self.of_images = ImageSums((*self.primary, model.depth))
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
                # Workers share them, whoever saw these images.
                causal_images=0,
                replacement=knobs.replacement,
                seed=config.seed,
            ),
            of_images=self.of_images,
        )
        tokens, memory = self.instruments.tokens, knobs.attention_memory
        kept = self.of_images
        self.attention = AttentionStatistics(tokens, memory=memory, of_images=kept)
        self.of_student = AttentionStatistics(
            tokens, memory=memory, group="student", of_images=kept
        )
        self.alike = Alignment(tokens)
        self.shown = ClsMaps(tokens, config, thorough=thorough) if shows else None

    def observer(self, done: int, *others: Observer) -> Observer:
        """For the teacher's pass over the images after the first `done`."""
        if self.of_images is not None:
            self.of_images.first = done
        if self.shown is not None:
            others = (*others, *self.shown.observers(done))
        left = self.most - done
        if left <= 0:
            return of_first(None, *others)
        mine: Observer = self.attention
        if self.thorough:
            mine = of_first(None, self.instruments.observer(), self.alike)
        return of_first(None, of_first(left, mine), *others)

    def see(self, crops: Tensor, draws: ForwardDraws, identifiers: Tensor, done: int) -> None:
        """The images that the teacher was just observed on."""
        if self.shown is not None:
            self.shown.see(done)
        left = self.most - done
        if self.thorough and left > 0:
            some = torch.arange(min(left, len(crops)), device=crops.device)
            self.instruments.see(crops[some], draws.rows(some), identifiers[some])
        left = self.probe_images - done
        if left > 0:
            some = torch.arange(min(left, len(crops)), device=crops.device)
            self.student(crops[some], draws.rows(some), observe=self.of_student)

    def metrics(self, images: ImageSet, test: Tensor, world: World) -> Metrics:
        """By name; each layer and head of the teacher's attention too.

        Of what all workers of `world` saw in turn; of the first images of `test` influence and
        gradient reach, in which they share each batch.
        """
        total = self.attention.total
        if self.thorough:
            total = self.instruments.total()
            causes = self._causes(images, test, world)
            total = total.merge(causes) if causes else total
        total = total.merge(self.of_student.total).of_all(world)
        self.alike.gather(world)
        found = total.metrics(self.primary, by_head=("globality",))
        if self.of_images is not None and self.by_image is not None:
            seen = min(len(test), max(self.most, self.probe_images))
            self.by_image |= self.of_images.values(
                total.values, total.maps, found, self.primary, seen, world
            )
        return found | self.alike.metrics()

    def _causes(self, images: ImageSet, test: Tensor, world: World) -> Accumulator | None:
        """This worker's share of influence and gradient reach, if they are measured."""
        knobs = self.config.evaluation
        first = test[: min(knobs.causal_images, self.most)]
        if len(first) < 2:
            return None
        device = self.instruments.tokens.patch_queries.device
        if self.of_images is not None:
            self.of_images.first = 0
        found, influence, numbers = measure_causes(
            self.instruments.network,
            [batch[:2] for batch in batches(images, first, self.config, device)],
            self.instruments.tokens,
            replacement=knobs.replacement,
            seed=self.config.seed,
            share=slice(world.rank, None, world.size),
            of_images=self.of_images,
        )
        if self.shown is not None:
            # The first of the rows is that of [CLS], where there is one.
            self.shown.see_influence(len(first), numbers, influence[:, 0])
        return found
