"""k-NN and linear probe of held-out images, on each token that could stand for an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.evaluation.knn import accuracy, gaps, knn_right
from trainers.evaluation.linear_probe import accuracy_of_all, linear_right
from trainers.evaluation.rows import Joined, Rows
from trainers.model.network import Network
from trainers.model.positions import patch_at
from trainers.model.vit import Features
from trainers.randomness.forward_draws import keyed
from trainers.system.world import World


class TokenFeatures:
    """Features of images on each token, through the last norm.

    Of every token those of the last block, [n, D]; of the tokens that are probed also those of the
    blocks before it, [n, blocks · D].
    """

    def __init__(
        self, teacher: Network, config: TrainConfig, probe: bool, device: torch.device
    ) -> None:
        self.norm = teacher.backbone.norm
        self.config = config
        model = config.model
        there = {"patch": True, "random_patch": True, "fixed_patch": True}
        there |= {"cls": model.cls, "register": model.registers > 0}
        earlier = (min(config.evaluation.linear_blocks, model.depth) - 1) * model.width
        names = [name for name, is_there in there.items() if is_there]
        self.last = {name: Rows(model.width, device) for name in names}
        self.earlier = {
            name: Rows(earlier, device) for name in names if probe and name in ("cls", "patch")
        }

    def see(self, output: Features, blocks: Sequence[Tensor], identifiers: Tensor) -> None:
        """Take images, with the outputs [B, T, D] of their last blocks where they are probed."""
        places = self._places(output, identifiers)
        before = [self.norm(tokens) for tokens in blocks[:-1]]
        for name, rows in self.last.items():
            rows.add(places[name](output.tokens))
        for name, rows in self.earlier.items():
            parts = [output.tokens[:, 0, :0], *(places[name](tokens) for tokens in before)]
            rows.add(torch.cat(parts, dim=1))

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
        fixed = first + patch_at(self.config.loss.fixed_patch_place, output.grid)
        return {
            "patch": lambda tokens: tokens[:, first:].mean(1),
            "random_patch": lambda tokens: tokens[rows, chance],
            "fixed_patch": lambda tokens: tokens[:, fixed],
            "cls": lambda tokens: tokens[:, 0],
            "register": lambda tokens: tokens[:, int(output.has_cls)],
        }


def classification(
    queries: TokenFeatures,
    bank: TokenFeatures,
    query_labels: Tensor,
    bank_labels: Tensor,
    config: TrainConfig,
    world: World,
    by_image: dict[str, Tensor] | None = None,
) -> dict[str, float]:
    """k-NN and linear probe of held-out images by the training images, whose labels these are.

    Each worker of `world` holds the features of every so many batches. `by_image` is given, by
    name, each metric of each image, float32 [m].
    """
    knobs = config.evaluation

    def mine(labels: Tensor) -> Tensor:
        return torch.cat([labels[:0], *labels.split(knobs.batch_size)[world.rank :: world.size]])

    metrics: dict[str, float] = {}
    for name in queries.last:
        held = torch.cat(list(queries.last[name])).split(knobs.batch_size)
        right = knn_right(
            bank.last[name],
            mine(bank_labels),
            torch.cat(list(world.in_turn(held))),
            query_labels,
            neighbours=knobs.knn_neighbours,
            temperature=knobs.knn_temperature,
            world=world,
        )
        metrics[f"knn/{name}_top1"] = accuracy(right)
        if by_image is not None:
            by_image[f"knn/{name}_top1"] = right.float().cpu()
        if name in queries.earlier:
            right = linear_right(
                Joined([bank.earlier[name], bank.last[name]]),
                mine(bank_labels),
                Joined([queries.earlier[name], queries.last[name]]),
                mine(query_labels),
                penalty=knobs.linear_penalty,
                world=world,
            )
            metrics[f"linear_probe/{name}_top1"] = accuracy_of_all(right, world)
            if by_image is not None:
                every = world.in_turn(right.float().split(knobs.batch_size))
                by_image[f"linear_probe/{name}_top1"] = torch.cat(list(every)).cpu()
    if by_image is not None:
        by_image |= gaps(by_image)
    return metrics | gaps(metrics)
