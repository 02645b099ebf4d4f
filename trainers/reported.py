"""Which metrics a run reports, by its configuration."""

from trainers.config import TrainConfig
from trainers.evaluation import collapse
from trainers.method.site import sites
from trainers.metrics import PROBED

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
