"""Every metric a run reports: its name, and its meaning with unit, range and source."""

from trainers.evals import collapse, knn
from trainers.globality import statistics

EVALUATED = {**knn.DESCRIPTIONS, **collapse.DESCRIPTIONS, **statistics.DESCRIPTIONS}
"""Metrics of held-out images, measured at step 0, at a cadence and at the last step."""

TRAINING = {
    "loss/total": "training loss: weighted sum over the sites of the loss; nats, >= 0",
    "loss/cls": "cross-entropy of teacher and student on [CLS] (Caron et al. 2021, eq. 3); nats",
    "loss/cls_target_entropy": "mean entropy of the targets on [CLS]; nats, 0 to ln K",
    "loss/cls_kl": "KL divergence from targets to student on [CLS]; nats; 0: constant output",
    "loss/patches": "the same cross-entropy on the mean patch token; nats",
    "loss/patches_target_entropy": "mean entropy of the targets on the mean patch; nats, 0 to ln K",
    "loss/patches_kl": "KL divergence from targets to student on the mean patch; nats",
    "optimizer/gradient_norm": "norm of all gradients before clipping",
    "optimizer/learning_rate": "learning rate of the update",
    "data/chain": "first 48 bits of the hash chain of every crop seen; equal iff the data were",
    "time/step_s": "mean time of an update since the last record; seconds",
}
"""Metrics of the training itself, recorded every `log_every` steps."""

METRICS = {**EVALUATED, **TRAINING}
