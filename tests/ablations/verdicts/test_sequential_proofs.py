"""Proofs by mutation of sequential designs: what is right passes all, what is broken is found."""

from types import SimpleNamespace

import numpy as np
import pytest

from ablations.design import Design
from ablations.spec import Claim, Hypothesis, Multiplicity
from ablations.verdicts import proofs as proving
from ablations.verdicts import reasons
from ablations.verdicts.evidence import Run
from ablations.verdicts.looks import follow
from ablations.verdicts.other_looks import look_fault
from ablations.verdicts.proofs import prove
from ablations.verdicts.rule import decide

SEEDS = tuple(range(10))
NOISE = np.random.default_rng(3).standard_normal((8, 10))
DESIGN = Design(looks=(6, 8, 10), spending="pocock", futility="equivalence")


def hypothesis(arm, direction="rises", **change):
    given = {
        "metric": "m",
        "contrast": (arm, "baseline"),
        "direction": direction,
        "smallest_effect": 1.0,
        "control": "control",
        "family": arm,
    }
    return Hypothesis(**(given | change))


HYPOTHESES = {
    "rises": hypothesis("rising"),
    "falls": hypothesis("falling", "falls"),
    "holds": hypothesis("alike", "holds"),
    "excluded": hypothesis("alike", test="t"),
    "late": hypothesis("late", "differs"),
    "open": hypothesis("noisy", control=""),
}
ARMS = {
    "baseline": np.zeros(10),
    "control": np.full(10, 9.0),
    "rising": 2.0 + 0.3 * NOISE[0],
    "falling": -2.0 + 0.3 * NOISE[1],
    "alike": 0.2 * NOISE[2],
    "late": 1.2 + 0.9 * NOISE[5],
    "noisy": 1.0 + 4.0 * NOISE[3],
}
RUNS = {
    (arm, seed): Run(status="finished", start={}, end={"m": float(value)}, key=arm)
    for arm, of in ARMS.items()
    for seed, value in zip(SEEDS, of, strict=True)
}
CLAIMS = {"both": Claim(text="", hypotheses=("rises", "falls"))}


def proved(design=DESIGN, hypotheses=HYPOTHESES, judged_by=None, runs=RUNS, claims=CLAIMS):
    stops = {}

    def again(stated, changed, by):
        found = follow(stated, {}, changed, SEEDS, by, advise=False, stops=stops)
        return {name: one.verdict for name, one in found.items()}

    verdicts = again(hypotheses, runs, design)
    stops |= {name: len(verdict.seeds) for name, verdict in verdicts.items()}
    # Runs beyond the looks of all verdicts have not been made.
    last = {arm: max(stops[n] for n, one in hypotheses.items() if arm in one.arms)
            for one in hypotheses.values() for arm in one.arms}  # fmt: skip
    left = {place: run for place, run in runs.items() if place[1] < last.get(place[0], 10)}
    given = hypotheses, claims, left, SEEDS, verdicts
    return stops, prove(*given, judged_by or again, Multiplicity(), design)


def faults(proofs):
    return {
        (name, mutant)
        for group in ("hypotheses", "claims")
        for name, of in proofs[group].items()
        for mutant, proof in of.items()
        if proof["outcome"] == "unchanged"
    }


@pytest.mark.parametrize("spending", ["pocock", "obf"])
def test_verdicts_of_a_design_change_as_they_must(spending):
    stops, proofs = proved(DESIGN.model_copy(update={"spending": spending}))
    assert faults(proofs) == set()
    assert len(set(stops.values())) > 1
    of = proofs["hypotheses"]
    rises = {mutant: (proof["outcome"], proof["to"]) for mutant, proof in of["rises"].items()}
    assert rises["copied"] == rises["effect"] == rises["certain"] == ("as asked", "supported")
    assert rises["opposite"] == ("as asked", "refuted")
    assert rises["null"][1] in ("equivalent", "inconclusive")
    assert rises["dropped"] == ("refused", "failed")
    assert {of[name]["dropped"]["outcome"] for name in of} == {"refused"}
    assert {of[name]["looks dropped"]["outcome"] for name in of} == {"as asked"}
    assert {of[name]["look added"]["outcome"] for name in of} == {"as asked"}
    assert of["holds"]["certain"]["to"] == "refuted"
    assert proofs["claims"]["both"]["null"]["to"] != "supported"
    assert "look added" in proofs["asked"]


def test_an_e_process_is_proved_too_and_its_looks_cost_nothing():
    looks = (7, 8, 9, 10)
    _, proofs = proved(Design(looks=looks, spending="e-process", futility="equivalence"))
    assert faults(proofs) == set()
    of = proofs["hypotheses"]["rises"]
    assert of["null"]["outcome"] == of["alpha"]["outcome"] == "as asked"
    assert of["look added"]["outcome"] == "void"


def test_a_judge_that_charges_nothing_for_looks_is_found():
    def free(stated, runs, design):
        once = {}
        for name, one in stated.items():
            n = stops[name]
            looks = Design(looks=(n,), spending="obf")
            once |= follow({name: one}, {}, runs, SEEDS[:n], looks, advise=False)
        return {name: one.verdict for name, one in once.items()}

    stops, _ = proved()
    _, proofs = proved(judged_by=free)
    assert {("rises", "look added"), ("rises", "copied")} <= faults(proofs)


def test_a_rule_that_supports_everything_at_each_look_is_found(monkeypatch):
    monkeypatch.setattr(reasons, "decide", lambda **given: ("supported", ()))
    assert {("rises", "null"), ("rises", "opposite"), ("both", "null")} <= faults(proved()[1])


def test_a_rule_that_ignores_p_is_found_at_a_look(monkeypatch):
    monkeypatch.setattr(reasons, "decide", lambda **given: decide(**given | {"p_adjusted": 0.0}))
    assert ("rises", "unreachable") in faults(proved()[1])


def test_a_mirrored_member_that_stops_elsewhere_changes_the_adjusted_p_of_its_family_alone():
    """A rise of 1.2 goes on to the last look; the same fall is refuted before, with a larger p."""
    arms = {"rising": 1.2 + 0.9 * NOISE[5], "other": 1.0 + NOISE[7], "baseline": np.zeros(10)}
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"m": float(of[seed])}, key=arm)
        for arm, of in arms.items()
        for seed in SEEDS
    }
    family = {
        "rises": hypothesis("rising", control="", family="one"),
        "differs": hypothesis("other", "differs", control="", family="one"),
    }
    stops, proofs = proved(hypotheses=family, runs=runs, claims={})
    assert stops == {"rises": 10, "differs": 10}
    of = proofs["hypotheses"]
    assert of["rises"]["relabelled"]["text"] == "its design stops elsewhere"
    assert of["differs"]["relabelled"]["outcome"] == "as asked"
    assert faults(proofs) == set()


@pytest.mark.parametrize("spending", ["pocock", "e-process"])
def test_how_runs_of_two_arms_end_is_proved_at_looks(spending):
    """A mutant states the contrast as a mapping, which a hypothesis by how runs end must keep."""
    ends = {"arm": ["collapsed"] * 9 + ["finished"], "baseline": ["finished"] * 10}
    runs = {
        (arm, seed): Run(status=status, start={}, end={}, key=arm)
        for arm, of in ends.items()
        for seed, status in enumerate(of)
    }
    one = hypothesis("arm", metric="", endpoint="collapsed", control="", smallest_effect=0.5)
    design = DESIGN.model_copy(update={"spending": spending})
    _, proofs = proved(design, {"collapses": one}, runs=runs, claims={})
    assert faults(proofs) == set()
    of = proofs["hypotheses"]["collapses"]
    assert (of["relabelled"]["outcome"], of["dropped"]["outcome"]) == ("as asked", "refused")


def verdict_of(seeds, interval):
    return SimpleNamespace(seeds=seeds, interval=interval)


@pytest.mark.parametrize(
    ("mutant", "interval", "says"),
    [
        ("look added", (-0.1, 1.1), ""),
        ("look added", (0.1, 0.9), "its interval is not wider"),
        ("look added", (0.0, 1.0), "its interval is not wider"),
        ("look added", None, "it has no interval"),
        ("looks dropped", (0.1, 0.9), ""),
        ("looks dropped", (-0.1, 1.1), "its interval is not narrower"),
    ],
)
def test_an_interval_pays_for_each_look(mutant, interval, says):
    before, after = verdict_of(8, (0.0, 1.0)), verdict_of(8, interval)
    assert look_fault(mutant, before, after) == says
    case = proving._Case(mutant, HYPOTHESES, {}, {}, {}, Multiplicity(), DESIGN)
    assert case._fault("rises", before, after) == says


def test_a_look_more_may_stop_earlier():
    assert look_fault("look added", verdict_of(8, (0.0, 1.0)), verdict_of(6, (0.4, 0.6))) == ""


@pytest.mark.parametrize(
    ("mutant", "looks", "deviation", "says"),
    [
        ("look added", (8,), 1.0, ""),
        ("looks dropped", (8,), 1.0, "there is one look"),
        ("looks dropped", (6, 8), 1.0, ""),
        ("looks dropped", (6, 8), 0.0, "its differences are equal"),
        ("look added", (6, 8), 0.0, "its differences are equal"),
    ],
)
def test_one_look_cannot_be_dropped_and_equal_differences_pay_for_none(
    mutant, looks, deviation, says
):
    before = SimpleNamespace(
        label="supported", n=8, p_equivalence=0.1, standard_deviation=deviation
    )
    design = Design(looks=looks, spending="obf")
    case = proving._Case(mutant, HYPOTHESES, {}, {}, {}, Multiplicity(), design)
    assert case._void("rises", before).partition(",")[0] == says
