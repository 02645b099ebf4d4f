"""Every knob of a run, as frozen pydantic models, made by a recipe and changed by `override`."""

from trainers.config.change import diff, fingerprint, flatten, leaves, override, trial_content
from trainers.config.checkpoints import CheckpointsConfig
from trainers.config.compute import ComputeConfig
from trainers.config.data import AugmentConfig, DataConfig
from trainers.config.epochs import in_steps
from trainers.config.evaluation import EvaluationConfig
from trainers.config.explain import explain, nearest, shown
from trainers.config.knob import (
    DINO,
    OURS,
    VIT,
    Coordinate,
    Interval,
    Knobs,
    Place,
    Share,
    Switch,
    knob,
)
from trainers.config.map_steps import map_steps
from trainers.config.method import LossConfig, OptimizerConfig, TargetsConfig, TeacherConfig
from trainers.config.model import SIZES, HeadConfig, ModelConfig
from trainers.config.train import TrainConfig

__all__ = [
    "DINO",
    "OURS",
    "SIZES",
    "VIT",
    "AugmentConfig",
    "CheckpointsConfig",
    "ComputeConfig",
    "Coordinate",
    "DataConfig",
    "EvaluationConfig",
    "HeadConfig",
    "Interval",
    "Knobs",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Place",
    "Share",
    "Switch",
    "TargetsConfig",
    "TeacherConfig",
    "TrainConfig",
    "diff",
    "explain",
    "fingerprint",
    "flatten",
    "in_steps",
    "knob",
    "leaves",
    "map_steps",
    "nearest",
    "override",
    "shown",
    "trial_content",
]
