"""All mutable state of a run: what a checkpoint saves and loads, and nothing else."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.config import LossConfig, TrainConfig
from trainers.head import ProjectionHead
from trainers.optim import make_optimizer
from trainers.vit import Features, VisionTransformer, initialise


class Network(nn.Module):
    """A backbone and its projection head."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.backbone = VisionTransformer(config.model, config.augment.global_size)
        self.head = ProjectionHead(config.model.width, config.head)

    def forward(self, images: Tensor) -> Features:
        """Features of images [B, 3, S, S]; the head is applied to a read-out of them."""
        features: Features = self.backbone(images)
        return features


def sites(config: LossConfig) -> dict[str, float]:
    """Where the loss sits and with which weight; only the sites that have one."""
    weights = {"cls": config.cls, "patches": config.patches}
    return {site: weight for site, weight in weights.items() if weight > 0}


def read_out(features: Features, site: str) -> Tensor:
    """What the head sees at a site, [B, D]: [CLS], or the mean patch token."""
    return features.cls if site == "cls" else features.patches.mean(1)


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
    def fresh(cls, config: TrainConfig, device: torch.device) -> "TrainState":
        """The state at step 0; the teacher starts as a copy of the student."""
        student, teacher = Network(config).to(device), Network(config).to(device)
        initialise(student, config.seed, config.model.initial_deviation)
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False)
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

    def extend_chain(self, identifiers: Tensor, digests: Tensor) -> None:
        """Add a global batch to the hash chain: sample identifiers and crop digests, int64 [B]."""
        seen = torch.stack([identifiers, digests]).cpu().numpy().tobytes()
        self.chain = hashlib.blake2b(self.chain + seen, digest_size=16).digest()

    @property
    def chain_number(self) -> float:
        """The first 48 bits of the hash chain, as a number that a float holds exactly."""
        return float(int.from_bytes(self.chain[:6], "big"))
