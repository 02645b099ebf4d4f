"""Attention that is known, through the instruments and a run folder, to a verdict."""

import json

import pytest
import torch
from torch import Tensor

from ablations.spec import Hypothesis
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from tests.registered import register
from tests.trainers.globality.observed import attending, layout
from trainers.globality.statistics import AttentionStatistics
from trainers.runs.records import Records
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

torch.set_num_threads(1)

SIDE, IMAGES, SEEDS = 7, 12, 8


def window(reach: float) -> Tensor:
    """Maps [N, N] of each query: falls off as exp(-distance / reach), own patch included."""
    x = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).float()
    maps = torch.exp(-torch.cdist(x, x) / reach)
    return maps / maps.sum(1, keepdim=True)


def local(seed: int, reach: float) -> tuple[Tensor, Tensor]:
    """[CLS] and patch maps that are alike in all images; the seed widens them a little."""
    maps = window(reach * (1 + 0.03 * seed))
    return maps[SIDE**2 // 2].expand(IMAGES, -1), maps.expand(IMAGES, -1, -1)


def shared(seed: int) -> tuple[Tensor, Tensor]:
    """One map for all queries and images."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.rand(SIDE**2, generator=generator)
    one = one / one.sum()
    return one.expand(IMAGES, -1), one.expand(IMAGES, SIDE**2, -1)


def content(seed: int) -> tuple[Tensor, Tensor]:
    """One map for all queries of an image, around a place that is another in each image."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(SIDE**2, generator=generator)[:IMAGES]
    maps = window(1.0)[places]
    return maps, maps[:, None].expand(-1, SIDE**2, -1)


def metrics(cls: Tensor, patches: Tensor) -> dict[str, float]:
    attention = torch.zeros(IMAGES, 1, SIDE**2 + 1, SIDE**2 + 1)
    attention[:, 0, 0, 1:], attention[:, 0, 1:, 1:] = cls, patches
    statistics = AttentionStatistics(layout((SIDE, SIDE)), memory=16.0)
    statistics(attending(attention))
    return statistics.total.metrics((1,))


ARMS = {
    "baseline": lambda seed: local(seed, 1.0),
    "wide": lambda seed: local(seed, 3.0),
    "same": lambda seed: local(seed, 1.0 + 1e-4),
    "shared": shared,
    "content": content,
}


def verdicts(root, **hypotheses) -> dict[str, str]:
    """Labels of hypotheses about the planted arms, from a run root on disk."""
    store, trials = open_store(root), []
    for arm, plant in ARMS.items():
        for seed in range(SEEDS):
            key = f"{arm}-{seed}"
            trial = StoredTrial(store, key)
            records = Records(store, trial.attempt_folder(1))
            records.report(10, metrics(*plant(seed)))
            result = {"status": "finished", "reason": "", "step": 10, "steps": 10, "attempt": 1}
            store.put(trial.result_key, json.dumps({**result, "files": records.cut()}).encode())
            trials.append({"key": key, "arm": arm, "seed": seed})
    declared = {
        name: Hypothesis(
            metric=metric,
            contrast=tuple(contrast),
            direction=direction,
            smallest_effect=0.05,
            control="".join(control),
            family=name,  # eight seeds cannot bear Holm over seven tests
        ).model_dump(mode="json")
        for name, (metric, contrast, direction, *control) in hypotheses.items()
    }
    stated = {
        "study": "planted",
        "hypotheses_sha256": "0",
        "resolved": {
            "seeds": list(range(SEEDS)),
            "arms": {arm: {} for arm in ARMS},
            "hypotheses": declared,
            "gates": {},
        },
        "arms": {},
        "trials": trials,
        "config": {},
    }
    register(store, stated)
    found = judged(read_study(store, "planted"))["hypotheses"]
    return {name: entry["verdict"]["label"] for name, entry in found.items()}


@pytest.mark.slow
def test_planted_attention_gets_the_verdict_that_is_true_of_it(tmp_path):
    gyration, locality = "globality/cls/gyration", "globality/patch/locality"
    bias, dependence = "globality/cls/positional_bias", "globality/cls/content_dependence"
    found = verdicts(
        tmp_path,
        wider_is_more_global=(gyration, ["wide", "baseline"], "rises"),
        wider_is_less_local=(locality, ["wide", "baseline"], "falls"),
        wider_is_narrower=(gyration, ["wide", "baseline"], "falls"),
        same_is_same=(gyration, ["same", "baseline"], "holds", "wide"),
        same_is_wider=(gyration, ["same", "baseline"], "rises", "wide"),
        local_is_local=(locality, ["baseline"], "rises"),
        shared_is_not_local=(locality, ["shared"], "holds", "baseline"),
        content_depends_on_the_image=(dependence, ["content", "baseline"], "rises"),
        content_is_less_biased=(bias, ["content", "baseline"], "falls"),
        local_depends_on_no_image=(dependence, ["baseline"], "holds", "content"),
    )
    assert found == {
        "wider_is_more_global": "supported",
        "wider_is_less_local": "supported",
        "wider_is_narrower": "refuted",
        "same_is_same": "supported",
        "same_is_wider": "equivalent",
        "local_is_local": "supported",
        "shared_is_not_local": "supported",
        "content_depends_on_the_image": "supported",
        "content_is_less_biased": "supported",
        "local_depends_on_no_image": "supported",
    }


@pytest.mark.parametrize("arm", ARMS)
def test_planted_maps_are_maps(arm):
    for part in ARMS[arm](0):
        torch.testing.assert_close(part.sum(-1), torch.ones(part.shape[:-1]))
