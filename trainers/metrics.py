"""Every metric a run reports: its name, and its meaning with unit, range and source."""

from trainers.config import TrainConfig
from trainers.evaluation import collapse, knn, linear_probe, position_probe
from trainers.globality import alignment, descriptions
from trainers.method.site import all_sites, sites

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

TRAINING = {
    "loss/total": "training loss: weighted sum of all losses; nats",
    **{
        f"loss/{name}{suffix}": f"{meaning} {site.meaning}"
        for name, site in all_sites().items()
        for suffix, meaning in (
            ("", "cross-entropy of teacher and student (Caron et al. 2021, eq. 3), nats; on"),
            ("_target_entropy", "mean entropy of the targets, nats, 0 to ln K; on"),
            ("_kl", "KL divergence from targets to student, nats, 0: constant output; on"),
        )
    },
    "loss/labels": "supervised cross-entropy on [CLS]; nats",
    "loss/labels_top1": "share of training crops whose label the classifier finds; 0 to 1",
    "loss/koleo": "minus mean log distance to the nearest image of the batch, unit norm",
    "optimizer/gradient_norm": "norm of all gradients before clipping",
    "optimizer/learning_rate": "learning rate of the update",
    "data/chain": "first 48 bits of the hash chain of every crop seen; equal iff the data were",
    "time/step_s": "mean time of an update since the last record; seconds",
}
"""Metrics of the training itself, recorded every `log_every` steps."""

METRICS = {**EVALUATED, **TRAINING}

_WITH_CLS = {"cls", "contrast", "cls_mass", "patch_cosine", "cls_top1", "cls_patch", "gap"}
_WITH_REGISTER = {"register", "register_contrast", "register_mass", "register_top1"}
_WITH_OUTPUTS = collapse.DESCRIPTIONS.keys() - {
    "collapse/rankme",
    "collapse/feature_std",
    "collapse/uniformity",
}


def why_missing(metric: str, config: TrainConfig) -> str:
    """What a run of `config` lacks to report `metric` on labelled images; empty if it reports it.

    In words that follow "needs".
    """
    parts, model, loss = metric.split("/"), config.model, config.loss
    if parts[0] == "loss":
        knob = parts[1].removesuffix("_target_entropy").removesuffix("_kl").removesuffix("_top1")
        if knob != "total" and not getattr(loss, knob):
            return f"loss.{knob} above 0"
        return ""
    if not model.cls and _WITH_CLS & set(parts):
        return "a [CLS] token (model.cls)"
    if not model.registers and _WITH_REGISTER & set(parts):
        return "a register (model.registers 1 or more)"
    if metric in PROBED and not config.evaluation.probes:
        return "evaluation.probes true"
    if parts[0] in ("reach", "influence") and config.evaluation.causal_images < 2:
        return "evaluation.causal_images 2 or more"
    if parts[-1] in ("head_max", "head_deviation") and model.heads < 2:
        return "model.heads 2 or more"
    if metric in _WITH_OUTPUTS and not sites(loss):
        return "a weight of self-distillation above 0"
    return ""
