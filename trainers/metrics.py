"""Every metric a run reports: its name, and its meaning with unit, range and source."""

from trainers.evaluation import collapse, knn, linear_probe, position_probe
from trainers.globality import alignment, descriptions
from trainers.method.site import all_sites
from trainers.training import pace

LABELLED = knn.DESCRIPTIONS.keys() | linear_probe.DESCRIPTIONS.keys()
"""Metrics of held-out images that exist only on a data set with labels."""

PROBED = {**linear_probe.DESCRIPTIONS, **position_probe.DESCRIPTIONS}
"""Metrics of held-out images that take training a probe."""

AT_THE_ENDS = {**PROBED, **descriptions.AT_THE_ENDS, **alignment.DESCRIPTIONS}
"""Metrics of held-out images that are measured at step 0 and at the last step only."""

EVALUATED = {
    **knn.DESCRIPTIONS,
    **collapse.DESCRIPTIONS,
    **descriptions.DESCRIPTIONS,
    **AT_THE_ENDS,
}
"""Metrics of held-out images; where not AT_THE_ENDS, measured at a cadence too."""

OF_A_SITE = {
    "": "cross-entropy of teacher and student (Caron et al. 2021, eq. 3), nats; on",
    "_target_entropy": "mean entropy of the targets as the loss weights them, nats, 0 to ln K; on",
    "_kl": "KL divergence from targets to student, nats, 0 up; 0: the student gives them; on",
}
"""How the names of a site's metrics end, and their meaning."""

TRAINING = {
    "loss/total": "training loss: weighted sum of all losses; nats",
    **{
        f"loss/{name}{suffix}": f"{meaning} {site.meaning}"
        for name, site in all_sites().items()
        for suffix, meaning in OF_A_SITE.items()
    },
    "loss/labels": "supervised cross-entropy on [CLS]; nats",
    "loss/labels_top1": "share of training crops whose label the classifier finds; 0 to 1",
    "loss/koleo": "minus mean log distance to the nearest image of the batch, unit norm; "
    "summed over global crops",
    "optimizer/gradient_norm": "norm of all gradients before clipping",
    "optimizer/learning_rate": "learning rate of the update",
    "data/chain": "first 48 bits of the hash chain of every crop seen; equal iff the data were",
    **pace.DESCRIPTIONS,
    **pace.ON_KNOWN_CARDS,
}
"""Metrics of the training itself, recorded every `log_every` steps."""

OF_THE_MACHINE = ("time/", "memory/")
"""What the names of metrics begin with that say nothing of the model."""

METRICS = {**EVALUATED, **TRAINING}
