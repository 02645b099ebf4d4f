"""All mutable state of a run: what a checkpoint saves and loads, and nothing else."""

import copy
import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.method.optimizer import make_optimizer
from trainers.method.site import has_patch_head, hides_patches, sites
from trainers.model.network import Network, Uninitialised
from trainers.model.vit import initialise
from trainers.system.compiling import prepare
from trainers.system.world import World
from trainers.training.starting import Starting, take


@dataclass(kw_only=True)
class TrainState:
    """One run after `step` updates."""

    step: int
    student: Network
    teacher: Network
    optimizer: torch.optim.AdamW
    centers: dict[str, Tensor]
    """of each site of the loss, the center [K] of the teacher's outputs"""
    chain: bytes
    """hash chain, 16 bytes, of all crops seen so far"""

    @classmethod
    def fresh(
        cls,
        config: TrainConfig,
        world: World,
        classes: int = 0,
        starting: Starting | None = None,
    ) -> "TrainState":
        """The state at step 0; the teacher starts as a copy of the student.

        `classes` of the data count only where labels are learned. The backbone has the weights
        `starting`, if any. Raises ConfigError, one line, where they do not fit.
        """
        device = world.device
        student = _uninitialised(config, classes)
        model = config.model
        initialise(student, config.seed, model.initial_deviation, model.layer_scale)
        if starting is not None:
            take(starting, student.backbone, config)
        student.to(device)
        teacher = copy.deepcopy(student).requires_grad_(False)
        student.backbone.checkpointing = config.compute.activation_checkpointing
        for network in (student, teacher):
            if config.compute.compile:
                prepare()
                patches_head = network.head_of(each_patch=True)
                for part in (network.backbone.placed, *network.backbone.blocks):
                    part.compile(dynamic=False)
                for head in (network.head, network.patch_head):
                    if head is not None and not config.head.batch_norm:
                        # Of hidden patches there is another number each step.
                        sees_hidden = hides_patches(config.loss) and head is patches_head
                        head.compile(dynamic=sees_hidden)
            if config.compute.sharded:
                # Not the network around them: its parts are called one by one.
                # Autocast casts all matrices of a block, but neither positions nor prototypes.
                world.shard(network.backbone.blocks, config.compute.precision)
                world.shard(network.children())
        return cls(
            step=0,
            student=student,
            teacher=teacher,
            optimizer=make_optimizer(student, config.optimizer),
            centers={
                site: torch.zeros(config.head.prototypes, device=device)
                for site in sites(config.loss)
            },
            chain=bytes(16),
        )

    def unsharded(self, config: TrainConfig, world: World, classes: int) -> "TrainState":
        """This state with networks that one worker can use alone; every worker must ask.

        It is to be looked at, not trained: the optimizer is still that of the parts.
        """
        if not config.compute.sharded or world.size == 1:
            return self
        found = []
        for parts in (self.student, self.teacher):
            whole = _uninitialised(config, classes).to(world.device)
            places = whole.state_dict()
            # One by one: there is no room for the networks a third time.
            for name, tensor in parts.state_dict().items():
                places[name].copy_(world.whole(tensor))
            found.append(whole)
        student, teacher = found
        return replace(self, student=student, teacher=teacher.requires_grad_(False))

    def extend_chain(self, identifiers: Tensor, digests: Tensor) -> None:
        """Add a global batch to the hash chain: sample identifiers and crop digests, int64 [B],
        both on the host."""
        seen = torch.stack([identifiers, digests]).numpy().tobytes()
        self.chain = hashlib.blake2b(self.chain + seen, digest_size=16).digest()

    @property
    def chain_number(self) -> float:
        """The first 48 bits of the hash chain, as a number that a float holds exactly."""
        return float(int.from_bytes(self.chain[:6], "big"))


def _uninitialised(config: TrainConfig, classes: int) -> Network:
    """A network whose values are yet to be set."""
    masks, patch_head = hides_patches(config.loss), has_patch_head(config)
    with Uninitialised():
        return Network(config, classes, masks=masks, patch_head=patch_head)
