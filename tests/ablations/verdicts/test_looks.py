"""Sequential designs: what a look decides, on which seeds, and which runs it spares.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from ablations.design import Design
from ablations.spec import Gate, Hypothesis, Multiplicity
from ablations.statistics.e_process import anytime_p
from ablations.statistics.sequential_p import (
    confidence_sequence,
    level,
    nominal_p,
    one_sided_level,
    sign_flip_p,
)
from ablations.statistics.sign_flip import signflip_p
from ablations.statistics.summary import summarise
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import judge
from ablations.verdicts.looks import (
    design_notes,
    follow,
    saved,
    saved_text,
    told_apart,
    unnamed,
)

SEEDS = tuple(range(16))
POCOCK = Design(looks=(8, 12, 16), spending="pocock", futility="equivalence")
EFFECTS = {"baseline": 0.0, "up": 2.0, "small": 0.1, "down": -2.0}


def finished(value):
    return Run(status="finished", start={}, end={"m": value}, wall_s=1800.0)


def runs_of(effects=EFFECTS, seeds=SEEDS, noise=0.4):
    chance = np.random.default_rng(0)
    return {
        (arm, seed): finished(float(effect + chance.normal(0, noise)))
        for seed in seeds
        for arm, effect in effects.items()
    }


def hypothesis(arm, direction="rises", **fields):
    return Hypothesis(
        metric="m", contrast=(arm, "baseline"), direction=direction, smallest_effect=1.0,
        **{"control": "up" if arm == "small" else "", **fields},
    )  # fmt: skip


UP = {"up": hypothesis("up")}
ALL = UP | {"small": hypothesis("small"), "wrong": hypothesis("down", family="other")}


def labels(followed):
    return {name: (one.verdict.label, len(one.wants)) for name, one in followed.items()}


def test_an_effect_is_supported_one_that_is_not_there_equivalent_and_an_opposite_one_refuted():
    assert labels(follow(ALL, {}, runs_of(), SEEDS, POCOCK)) == {
        "up": ("supported", 8), "small": ("equivalent", 8), "wrong": ("refuted", 8),
    }  # fmt: skip


def test_a_verdict_rests_on_the_seeds_of_its_look_whatever_others_have_measured():
    runs = runs_of()
    early = follow(ALL, {}, runs, SEEDS, POCOCK)
    for place in runs:
        if place[1] >= 8:
            runs[place] = finished(1e6)
    assert follow(ALL, {}, runs, SEEDS, POCOCK) == early
    assert early["up"].verdict.seeds == SEEDS[:8]
    assert early["up"].verdict.reason.endswith(
        "over all looks, after Holm over 2 hypotheses; stopped at look 1 of 3, 8 of 16 seeds"
    )


def test_an_arm_that_was_stopped_shows_what_it_did_that_the_end_point_moves():
    # Nothing but the arm `up` moves it, which is decided at the first look.
    runs = runs_of({"baseline": 0.0, "up": 2.0, "small": 0.4}, noise=0.6)
    stated = UP | {"small": hypothesis("small", control="", family="other")}
    whole = follow(stated, {}, runs, SEEDS, POCOCK)
    assert labels(whole) == {"up": ("supported", 8), "small": ("refuted", 12)}
    gates = {"learned": Gate(arms=("up",), metric="m", at_least=0.5)}
    for status in ("missing", "skipped"):
        for seed in SEEDS[8:]:
            runs["up", seed] = Run(status=status, start={}, end={})
        assert labels(follow(stated, gates, runs, SEEDS, POCOCK)) == labels(whole)
    for seed in SEEDS[8:]:
        del runs["up", seed]
    found = follow(stated, gates, runs, SEEDS, POCOCK)
    assert labels(found) == labels(whole)
    ups = [runs["up", seed].end["m"] - runs["baseline", seed].end["m"] for seed in SEEDS[:8]]
    assert found["small"].verdict.largest_effect == (pytest.approx(np.mean(ups)), "up")
    runs["up", 7] = Run(status="collapsed", start={}, end={"m": 9.0})
    assert follow(stated, {}, runs, SEEDS, POCOCK)["small"].verdict.label == "insensitive"


def test_without_futility_what_is_equivalent_goes_on_to_the_last_look():
    design = POCOCK.model_copy(update={"futility": ""})
    found = follow(ALL, {}, runs_of(), SEEDS, design)["small"]
    assert (found.verdict.label, len(found.wants)) == ("equivalent", 16)
    assert [look.label for look in found.verdict.looks] == ["equivalent"] * 3
    assert found.verdict.reason.endswith("at the last of 3 looks")


@pytest.mark.parametrize("status", [None, "missing", "skipped"])
def test_a_look_whose_runs_are_not_all_there_decides_nothing(status):
    runs = runs_of(seeds=SEEDS[:8])
    del runs["up", 7]
    if status:
        runs["up", 7] = Run(status=status, start={}, end={})
    found = follow(UP, {}, runs, SEEDS, POCOCK)["up"]
    assert not found.is_decided
    assert (found.wants, found.verdict.looks) == (SEEDS[:8], ())


def test_hypotheses_of_one_family_are_looked_at_together_and_others_are_not_waited_for():
    runs = runs_of(seeds=SEEDS[:8])
    del runs["small", 7]
    found = follow(ALL, {}, runs, SEEDS, POCOCK)
    assert [one.is_decided for one in found.values()] == [False, False, True]


def test_a_run_that_failed_for_good_holds_its_own_hypotheses_up_and_no_others():
    runs = runs_of()
    runs["small", 3] = Run(status="failed", start={}, end={})
    found = follow(ALL, {}, runs, SEEDS, POCOCK)
    assert (found["up"].verdict.label, found["up"].is_decided) == ("supported", True)
    assert (found["small"].verdict.label, found["small"].is_decided) == ("failed", False)
    assert found["small"].wants == SEEDS[:8]


def test_an_arm_that_collapsed_or_misses_its_gate_is_decided_at_the_first_look():
    runs = runs_of()
    runs["up", 3] = Run(status="collapsed", start={}, end={})
    assert labels(follow(UP, {}, runs, SEEDS, POCOCK)) == {"up": ("failed", 8)}
    gate = {"learned": Gate(arms=("up",), metric="m", at_least=5.0)}
    assert labels(follow(UP, gate, runs_of(), SEEDS, POCOCK)) == {"up": ("failed", 8)}


def test_a_look_at_which_pairs_lack_has_no_p_and_no_level():
    runs = runs_of()
    runs["up", 3] = Run(status="collapsed", start={}, end={})
    (look,) = follow(UP, {}, runs, SEEDS, POCOCK)["up"].verdict.looks
    assert (look.seeds, look.label) == (8, "failed")
    assert look.p is look.level is look.level_first is look.p_adjusted is None
    assert look.p_equivalence is look.level_equivalence is None


def test_a_failure_keeps_its_place_in_the_family():
    runs = runs_of(EFFECTS | {"other": 2.0})
    alone = follow(UP, {}, runs, SEEDS, POCOCK)["up"].verdict
    runs["other", 0] = Run(status="collapsed", start={}, end={})
    both = follow(UP | {"other": hypothesis("other")}, {}, runs, SEEDS, POCOCK)["up"].verdict
    assert both.looks[0].p_adjusted == pytest.approx(2 * alone.looks[0].p_adjusted)


def test_a_look_alone_at_all_seeds_is_the_fixed_design():
    once = Design(looks=(16,), spending="obf")
    fixed = judge(ALL, {}, runs_of(), SEEDS)
    for name, one in follow(ALL, {}, runs_of(), SEEDS, once).items():
        assert one.verdict.label == fixed[name].label
        assert one.verdict.p == pytest.approx(max(fixed[name].p, 1e-6), rel=1e-3)
        small = fixed[name].p_equivalence if name == "small" else 1.0
        assert one.verdict.p_equivalence == pytest.approx(max(small, 1e-6), rel=1e-3)
        assert one.verdict.interval == pytest.approx(fixed[name].interval, rel=1e-6)
        assert one.verdict.interval_equivalence == pytest.approx(
            fixed[name].interval_equivalence, rel=1e-6
        )


def test_an_e_process_stops_at_any_seed_and_asks_for_all_seeds_until_then():
    design = Design(looks=tuple(range(7, 17)), spending="e-process", futility="equivalence")
    found = follow(ALL, {}, runs_of(), SEEDS, design)
    assert labels(found) == {"up": ("supported", 8), "small": ("equivalent", 7),
                             "wrong": ("refuted", 7)}  # fmt: skip
    assert follow(UP, {}, runs_of(seeds=SEEDS[:6]), SEEDS, design)["up"].wants == SEEDS


def test_runs_of_arms_that_are_decided_are_skipped_and_counted_with_their_hours():
    runs = runs_of(EFFECTS | {"unnamed": 0.0}, seeds=SEEDS[:8])
    missing = Run(status="missing", reason="not started", start={}, end={})
    every = {(arm, seed): runs.get((arm, seed), missing)
             for arm in (*EFFECTS, "unnamed") for seed in SEEDS}  # fmt: skip
    arms = (*EFFECTS, "unnamed")
    told = told_apart(ALL, {}, every, arms, SEEDS, POCOCK)
    assert told["up", 8].status == "skipped"
    assert told["up", 8].reason == "all that needs it was decided at 8 of 16 seeds"
    assert told["unnamed", 8] == missing
    assert unnamed(ALL, arms) == ["unnamed"]
    assert saved(told) == (32, pytest.approx(16.0))


def test_a_control_is_needed_as_long_as_its_hypothesis():
    runs = runs_of(seeds=SEEDS[:8])
    del runs["up", 5]
    alone = {"small": hypothesis("small")}
    assert not follow(alone, {}, runs, SEEDS, POCOCK)["small"].is_decided


def test_a_predicted_collapse_is_supported_at_a_look_by_exact_tests():
    runs = runs_of(seeds=SEEDS[:8])
    for seed in SEEDS[:8]:
        runs["up", seed] = Run(status="collapsed", start={}, end={})
    stated = Hypothesis(
        endpoint="collapsed", contrast=("up", "baseline"), direction="rises", smallest_effect=0.5
    )
    found = follow({"up": stated}, {}, runs, SEEDS, POCOCK)["up"]
    assert (found.verdict.label, found.is_decided) == ("supported", True)
    assert found.verdict.looks[0].p == pytest.approx(2 / 2**8)


def test_hours_saved_are_the_mean_of_the_arm_or_of_all_runs_where_it_has_none():
    skipped = Run(status="skipped", start={}, end={})
    runs = {
        ("a", 0): replace(finished(0.0), wall_s=3600.0),
        ("a", 1): replace(finished(0.0), wall_s=7200.0),
        ("b", 0): replace(finished(0.0), wall_s=18000.0),
        ("a", 2): skipped,
        ("c", 0): skipped,
        ("c", 1): Run(status="missing", start={}, end={}),
    }
    # 1.5 hours of a; of c the mean of 1, 2 and 5 hours.
    assert saved(runs) == (2, pytest.approx(1.5 + 8 / 3))
    assert saved_text(runs, POCOCK) == (
        "sequential design (pocock at 8, 12, 16 seeds): 2 of 6 runs were not needed, which saved "
        "about 4.2 hours of runs"
    )
    assert saved({("c", 0): skipped}) == (1, 0.0)
    assert saved_text({("c", 0): skipped}, POCOCK).endswith("1 of 1 runs were not needed")


def test_an_arm_runs_until_the_last_of_its_hypotheses_is_decided():
    runs = runs_of(seeds=SEEDS[:8])
    missing = Run(status="missing", start={}, end={})
    for seed in SEEDS[8:]:
        runs["up", seed] = runs["baseline", seed] = missing
    for seed in SEEDS[:8]:
        runs["unsure", seed] = finished(0.9 + 3.0 * (-1) ** seed)
    both = UP | {"unsure": hypothesis("unsure", family="other")}
    found = follow(both, {}, runs, SEEDS, POCOCK)
    assert (found["up"].is_decided, found["unsure"].is_decided) == (True, False)
    told = told_apart(both, {}, runs, ("up", "baseline"), SEEDS, POCOCK)
    assert (told["up", 8].status, told["baseline", 8].status) == ("skipped", "missing")


def test_a_stop_decides_its_hypothesis_by_the_label_that_it_has_then():
    runs = runs_of()
    for seed in SEEDS:
        runs["unsure", seed] = finished(0.9 + 3.0 * (-1) ** seed)
    stated = {"unsure": hypothesis("unsure"), "other": hypothesis("unsure", family="other")}
    found = follow(stated, {}, runs, SEEDS, POCOCK, stops={"unsure": 12})
    assert labels(found) == {"unsure": ("inconclusive", 12), "other": ("inconclusive", 16)}
    assert found["unsure"].is_decided


def test_what_is_skipped_is_decided_by_the_gates_references_and_method_of_the_study():
    runs = runs_of(EFFECTS | {"none": 0.0})
    stated = {"none": hypothesis("none", "differs"), "up": hypothesis("up")}
    for arm in ("none", "up", "baseline"):
        for seed in SEEDS[8:]:
            runs[arm, seed] = Run(status="missing", start={}, end={})

    def skips(arm, gates=(), **given):
        arms = ("none", "up", "baseline")
        told = told_apart(stated, dict(gates), runs, arms, SEEDS, POCOCK, **given)
        return told[arm, 8].status == "skipped"

    assert (skips("up"), skips("none")) == (True, False)
    # In a sequence nothing is found behind what is not.
    assert not skips("up", multiplicity=Multiplicity(by="fixed-sequence"))
    gate = {"learned": Gate(arms=("none",), metric="m", at_least=0.5, at_least_over="pixels")}
    # What misses its gate has failed.
    assert skips("none", gate, references={"pixels": 0.1})
    assert not skips("none", gate, references={"pixels": -9.0})


def test_seeds_at_which_the_last_of_an_arm_was_decided_are_said():
    runs = runs_of(seeds=SEEDS[:12])
    for seed in SEEDS[:12]:
        runs["late", seed] = finished(-3.0 if seed == 3 else 2.0)
    runs["baseline", 12] = Run(status="missing", start={}, end={})
    both = {"late": hypothesis("late", family="other")} | UP
    found = follow(both, {}, runs, SEEDS, POCOCK)
    assert labels(found) == {"late": ("supported", 12), "up": ("supported", 8)}
    told = told_apart(both, {}, runs, ("late", "up", "baseline"), SEEDS, POCOCK)
    assert told["baseline", 12].reason == "all that needs it was decided at 12 of 16 seeds"


def test_what_looks_cost_is_said_of_each_family():
    levels = [level(POCOCK.looks, number, 0.05, "pocock") for number in range(3)]
    halves = [level(POCOCK.looks, number, 0.025, "pocock") for number in range(3)]
    said = [", ".join(f"{one:.2g}" for one in of) for of in (levels, halves)]
    assert design_notes(ALL, POCOCK) == [
        f"pocock, boundaries at 8, 12, 16 seeds: {said[0]}; for the first of 2, by Holm and not "
        f"max-T, {said[1]} (family of up)",
        f"pocock, boundaries at 8, 12, 16 seeds: {said[0]} (wrong)",
    ]
    alike = {name: hypothesis("up", family=name) for name in ("one", "two")}
    assert design_notes(alike, POCOCK) == [
        f"pocock, boundaries at 8, 12, 16 seeds: {said[0]} (one, two)"
    ]


def test_looks_at_which_sign_flips_can_support_nothing_are_said():
    obf = Design(looks=(8, 12, 16), spending="obf")
    (note,) = design_notes(UP, obf)
    assert note.endswith("; sign flips of 8 seeds cannot support it (up)")
    for other in ({"test": "t"}, {"direction": "holds"}):
        (note,) = design_notes({"up": hypothesis("up", **other)}, obf)
        assert "cannot support" not in note
    for n, is_said in ((16, True), (17, False)):
        (note,) = design_notes(
            {"up": hypothesis("up", alpha=1e-5)}, Design(looks=(n,), spending="obf")
        )
        assert note.endswith(f"; sign flips of {n} seeds cannot support it (up)") == is_said
    strict = Design(looks=(6, 8), spending="pocock")
    # Six seeds have nothing to spend, so eight have all of alpha.
    for alpha, early in ((2 / 2**8, "6"), (1.99 / 2**8, "6, 8")):
        (note,) = design_notes({"up": hypothesis("up", alpha=alpha)}, strict)
        assert note.endswith(f"; sign flips of {early} seeds cannot support it (up)")


def test_an_e_process_has_no_boundaries_to_say():
    design = Design(looks=(7, 8, 9), spending="e-process")
    assert design_notes(ALL, design) == [
        "e-process: looks after every seed from 7 on; a family is adjusted by Holm, not max-T"
    ]


def test_a_look_keeps_what_it_saw_alone_and_what_that_was_held_against():
    d = np.array([runs_of()["up", s].end["m"] - runs_of()["baseline", s].end["m"] for s in SEEDS])
    two = UP | {"other": hypothesis("down", "falls")}
    (look,) = follow(two, {}, runs_of(), SEEDS, POCOCK)["up"].verdict.looks
    assert (look.seeds, look.label) == (8, "supported")
    assert look.mean == pytest.approx(d[:8].mean())
    assert look.p == signflip_p(d[:8])
    assert look.level == level(POCOCK.looks, 0, 0.05, "pocock")
    assert look.level_first == level(POCOCK.looks, 0, 0.025, "pocock")
    assert look.level_equivalence == one_sided_level(POCOCK.looks, 0, 0.05, "pocock")
    alone = summarise(list(d[:8]), alpha=look.level, margin=1.0, test="signflip")
    assert look.interval == alone.interval
    assert look.p_equivalence == alone.p_equivalence
    narrow = summarise(list(d[:8]), alpha=look.level_equivalence, margin=1.0, test="signflip")
    assert look.interval_equivalence == narrow.interval_equivalence
    p = sign_flip_p(d[:8], POCOCK.looks, "pocock")
    assert look.p_adjusted == pytest.approx(2 * p)


def test_a_look_by_t_holds_its_p_against_the_level_of_the_design():
    d = np.array([runs_of()["up", s].end["m"] - runs_of()["baseline", s].end["m"] for s in SEEDS])
    found = follow({"up": hypothesis("up", test="t")}, {}, runs_of(), SEEDS, POCOCK)["up"].verdict
    plain = scipy.stats.ttest_1samp(d[:8], 0).pvalue
    assert found.looks[0].p == pytest.approx(plain)
    assert found.p == nominal_p(found.looks[0].p, POCOCK.looks, 0, "pocock")
    assert found.p_equivalence == 1.0


def test_the_p_of_a_design_is_the_least_of_its_looks():
    runs = runs_of()
    for seed in SEEDS[8:]:
        runs["up", seed] = finished(0.9 + 2.5 * (-1) ** seed)
    alone = {"up": hypothesis("up", direction="falls")}
    found = follow(alone, {}, runs, SEEDS, POCOCK)["up"].verdict
    assert found.label == "refuted"
    held = {"up": hypothesis("up", direction="holds"), "far": hypothesis("down", "holds")}
    looks = follow(held, {}, runs, SEEDS, POCOCK)["up"].verdict.looks
    p = [look.p_adjusted for look in looks]
    assert p == sorted(p, reverse=True)


def test_runs_of_one_trial_need_no_proof_that_they_are_equal_at_a_look():
    runs = {place: replace(run, end={"m": 0.5}, key="one") for place, run in runs_of().items()}
    for seed in SEEDS:
        runs["up", seed] = replace(finished(9.0), key="up")
    same = {"same": hypothesis("small", "holds", alpha=0.001)}
    found = follow(same, {}, runs, SEEDS, POCOCK)["same"].verdict
    # At 8 seeds the p of the control is above alpha.
    assert [look.p_equivalence for look in found.looks] == [0.0, 0.0]
    assert [look.label for look in found.looks] == ["insensitive", "supported"]
    apart = {place: replace(run, key="") for place, run in runs.items()}
    assert follow(same, {}, apart, SEEDS, POCOCK)["same"].verdict.looks[0].p_equivalence == 2**-8


def test_an_e_process_is_held_against_alpha_and_its_equivalence_against_twice_its_p():
    design = Design(looks=tuple(range(7, 17)), spending="e-process", futility="equivalence")
    runs = runs_of()
    d = np.array([runs["small", s].end["m"] - runs["baseline", s].end["m"] for s in SEEDS])
    found = follow(ALL, {}, runs, SEEDS, design)["small"].verdict
    look = found.looks[-1]
    assert (look.seeds, look.level, look.level_equivalence) == (7, 0.05, 0.05)
    assert look.level_first == 0.025
    assert look.p == found.p == anytime_p(d[:7])
    assert look.p_equivalence == max(anytime_p(d[:7] - 1.0), anytime_p(d[:7] + 1.0)) / 2
    assert found.interval == confidence_sequence(d[:7], 0.05)
    assert found.interval_equivalence == confidence_sequence(d[:7], 0.1)
    up = follow(UP, {}, runs, SEEDS, design)["up"].verdict
    assert up.p_equivalence == 1.0


@pytest.mark.parametrize(("size", "is_said"), [(3, False), (4, True)])
def test_a_look_must_bear_the_first_of_the_family(size, is_said):
    # The share of alpha by 8 of 16 seeds is log(1 + (e - 1) / 2): of a third of 0.05 it is more
    # than 2 / 2**8, of a fourth less.
    family = {str(number): hypothesis("up") for number in range(size)}
    (note,) = design_notes(family, POCOCK)
    assert ("sign flips of 8 seeds cannot support it" in note) == is_said


@pytest.mark.parametrize("spending", ["obf", "pocock"])
def test_labels_are_the_same_without_what_no_label_depends_on(spending):
    design = Design(looks=(8, 12, 16), spending=spending, futility="equivalence")
    stated = ALL | {"collapses": Hypothesis(
        endpoint="collapsed", contrast=("up", "baseline"), direction="rises", smallest_effect=0.5
    )}  # fmt: skip
    whole = follow(stated, {}, runs_of(), SEEDS, design)
    brief = follow(stated, {}, runs_of(), SEEDS, design, advise=False)
    assert labels(brief) == labels(whole)
    for name, one in brief.items():
        shown = replace(whole[name].verdict, interval_inversion=None)
        assert one.verdict == shown
    assert whole["up"].verdict.interval_inversion is not None


def test_the_narrow_interval_of_a_look_is_that_of_its_own_level():
    runs = runs_of()
    verdict = follow(UP, {}, runs, SEEDS, POCOCK)["up"].verdict
    d = [runs["up", seed].end["m"] - runs["baseline", seed].end["m"] for seed in range(8)]
    narrow = one_sided_level((8, 12, 16), 0, 0.05, "pocock")
    by_t = scipy.stats.ttest_1samp(d, 0.0).confidence_interval(1 - 2 * narrow)
    assert verdict.interval_equivalence == pytest.approx(tuple(by_t))
