"""A study that was never trained, of any size, in MLflow as a real one would be."""

from typing import Any

from ablations.registration import written
from dashboards.tables.derived import judged
from orchestrator.tracking.mirror import Mirror
from tests.orchestrator.tracking.conftest import Trial, ended, study_of
from trainers.system.store import LocalStore

METRIC = "knn/cls_top1"
RUNS = "<script>ran = 1</script><img src=x onerror='ran = 1'><a href='javascript:ran = 1'>here</a>"
"""What would set `ran` in a page that took it for more than text."""

DRAWN = """(name) => [...document.querySelectorAll(".js-plotly-plot")].some(
  plot => plot.querySelector(".main-svg") && JSON.stringify(plot.data).includes(name))"""
"""Whether a chart is drawn whose data hold that text."""


def mirrored_study(store: LocalStore, arms: int, seeds: int) -> None:
    """Mirror the study mini: arm-1 is 0.01 above the baseline, arm-2 0.02, and so on."""
    names = ["baseline", *(f"arm-{number}" for number in range(1, arms))]
    runs = {
        (arm, seed): ended(0.5 + names.index(arm) / 100 + seed / 1000)
        for arm in names
        for seed in range(seeds)
    }
    rises: dict[str, Any] = {
        "metric": METRIC, "direction": "rises", "smallest_effect": 0.01, "claim": RUNS,
        "contrast": ["arm-1", "baseline"],
    }  # fmt: skip
    study = study_of(
        runs,
        store,
        {"it rises": rises, RUNS: {**rises, "contrast": ["arm-2", "baseline"]}},
        changes={arm: {"model.depth": number} for number, arm in enumerate(names) if number},
        claims={RUNS: {"text": RUNS, "hypotheses": ["it rises"]}},
    )
    entry = written(study.entry.model_dump(mode="json", exclude={"sha256"}))
    store.put("studies/mini/registrations/0001.json", entry)
    mirror = Mirror("mini", store, print)
    for place in study.entry.trials:
        value = runs[place.arm, place.seed].end[METRIC]
        records = {step: {METRIC: value * step / 5, "loss/total": 3.0 - step} for step in range(6)}
        Trial(store, place.key, place.seed).finish(1, records)
        mirror.sync(place.key, [place.arm], place.seed)
    mirror.finish(study, judged(study))
