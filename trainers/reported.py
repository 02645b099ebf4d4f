"""Which metrics a run reports, by its configuration."""

from trainers.config import LossConfig, TrainConfig
from trainers.evaluation import collapse
from trainers.method.site import all_sites, sites
from trainers.metrics import OF_A_SITE, PROBED
from trainers.training import pace

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
        return _why_no_loss(metric, loss)
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
    if metric in pace.ON_KNOWN_CARDS:
        return "a GPU whose peak is known"
    if metric in _WITH_OUTPUTS and not sites(loss):
        return "a weight of self-distillation above 0"
    return ""


def _why_no_loss(metric: str, loss: LossConfig) -> str:
    site_of = {f"loss/{name}{suffix}": name for name in all_sites() for suffix in OF_A_SITE}
    if site := site_of.get(metric):
        if site in sites(loss):
            return ""
        has_knob = site in LossConfig.model_fields
        return f"loss.{site} above 0" if has_knob else f"{site} and its weight in loss.further"
    knob = metric.removeprefix("loss/").removesuffix("_top1")
    return "" if knob == "total" or getattr(loss, knob) else f"loss.{knob} above 0"
