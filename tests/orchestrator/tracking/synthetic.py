"""A study that was never trained, of any size, in MLflow as a real one would be."""

from dataclasses import replace
from typing import Any

from ablations.registration import entry_of, written
from dashboards.tables.derived import judged
from orchestrator.tracking.mirror import Mirror
from tests.dashboards.kept_maps import keep, kept_maps
from tests.orchestrator.tracking.conftest import Trial, ended, study_of
from trainers.system.store import LocalStore

METRIC = "knn/cls_top1"
RUNS = "<script>ran = 1</script><img src=x onerror='ran = 1'><a href='javascript:ran = 1'>here</a>"
"""What would set `ran` in a page that took it for more than text."""

ARM_RUNS = "<script>ran = 1<script><img src=x onerror='ran = 1'>".ljust(100, "x")
"""The same in the longest name that an arm may have."""

LONG_RUNS = RUNS.ljust(300, "x")
"""The same in a value of 300 characters."""

DRAWN = """(name) => [...document.querySelectorAll(".js-plotly-plot")].some(
  plot => plot.querySelector(".main-svg") && JSON.stringify(plot.data).includes(name))"""
"""Whether a chart is drawn whose data hold that text."""


def mirrored_study(store: LocalStore, arms: int, seeds: int) -> None:
    """Mirror the study mini: arm-1 is 0.01 above the baseline, arm-2 0.02, and so on.

    The last arm but one is ARM_RUNS. Trials of seed 0 have pictures.
    """
    names = ["baseline", *(f"arm-{number}" for number in range(1, arms))]
    names[-2] = ARM_RUNS
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
        {"it rises": rises, RUNS: {**rises, "contrast": [ARM_RUNS, "baseline"]}},
        changes={arm: {"model.depth": number} for number, arm in enumerate(names) if number}
        | {ARM_RUNS: {"model.depth": LONG_RUNS}},
        claims={RUNS: {"text": RUNS, "hypotheses": ["it rises"]}},
    )
    content = study.entry.model_dump(mode="json", exclude={"sha256"})
    entry = written({**content, "config": {"steps": 5}})
    study = replace(study, chain=(entry_of(entry),))
    store.put("studies/mini/registrations/0001.json", entry)
    mirror = Mirror("mini", store, print)
    for place in study.entry.trials:
        value = runs[place.arm, place.seed].end[METRIC]
        records = {step: {METRIC: value * step / 5, "loss/total": 3.0 - step} for step in range(6)}
        Trial(store, place.key, place.seed).finish(1, records)
        if place.seed == 0:
            steps = {step: kept_maps(step, is_last=step == 5) for step in (0, 5)}
            keep(store.root / "trials" / place.key, steps)
        mirror.sync(place.key, [place.arm], place.seed)
        mirror.log_pictures(place.key, [place.arm])
    mirror.finish(study, judged(study))
