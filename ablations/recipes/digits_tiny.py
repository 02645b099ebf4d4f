"""A very small DINO for the 1,797 embedded digits: learns in a quarter of a minute on one thread.

    dinolab train digits_tiny

Cost: about 20 s on one CPU thread. Expected at seed 0: see LOG.md, "how the recipe was found".
Photometric augmentation and flips are off: a mirrored digit is another shape, and grey images have
no colour.
"""

from trainers.config import TrainConfig, override

RECIPE = override(
    TrainConfig(),
    {
        "augment.flip": 0.0,
        "augment.jitter": 0.0,
        "augment.grayscale": 0.0,
        "augment.blur_first": 0.0,
        "augment.blur_others": 0.0,
        "augment.blur_local": 0.0,
        "augment.solarize": 0.0,
        "augment.local_crops": 1,
        "model.initial_deviation": 0.08,
        "targets.kind": "sinkhorn",
        "targets.temperature": 0.005,
        "targets.temperature_start": 0.005,
        "teacher.momentum": 0.97,
        "teacher.momentum_end": 0.99,
        "optimizer.learning_rate": 1e-3,
        "optimizer.learning_rate_end": 5e-4,
        "steps": 500,
        "log_every": 50,
        "evaluation.every": 250,
    },
)
