"""Proofs by mutation: a judge that is right passes all, and each broken one is found.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import functools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from ablations.design import Design
from ablations.spec import Claim, Gate, Hypothesis, Multiplicity
from ablations.verdicts import judge as judging
from ablations.verdicts import proofs as proving
from ablations.verdicts import reasons
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.evidence import Pair, Run, pairs_of
from ablations.verdicts.judge import judge
from ablations.verdicts.mutants import EXPLAINED, movable, mutated, planted, with_own_metrics
from ablations.verdicts.proofs import prove
from ablations.verdicts.rule import decide

SEEDS = tuple(range(8))
MULTIPLICITY = Multiplicity()
NOISE = np.random.default_rng(3).standard_normal((30, 8))


def hypothesis(arm="rising", direction="rises", **change):
    given = {
        "metric": "probe/knn",
        "contrast": (arm, "baseline"),
        "direction": direction,
        "smallest_effect": 1.0,
        "control": "control",
    }
    return Hypothesis(**(given | change))


def runs_of(arms):
    """Finished runs of the baseline, a control far away, and of arms with these differences."""
    values = {"baseline": np.full(8, 0.5), "control": np.full(8, 9.5)}
    values |= {arm: 0.5 + np.asarray(differences) for arm, differences in arms.items()}
    return {
        (arm, seed): Run(status="finished", start={}, end={"probe/knn": float(value)}, key=arm)
        for arm, of in values.items()
        for seed, value in zip(SEEDS, of, strict=True)
    }


HYPOTHESES = {
    "rises": hypothesis(),
    "falls": hypothesis("falling", "falls"),
    "differs": hypothesis("rising", "differs"),
    "holds": hypothesis("alike", "holds"),
    "excluded": hypothesis("alike", test="t"),
    "open": hypothesis("noisy", "rises", control=""),
}
RUNS = runs_of(
    {
        "rising": 2.0 + 0.3 * NOISE[0],
        "falling": -2.0 + 0.3 * NOISE[1],
        "alike": 0.2 * NOISE[2],
        "noisy": 1.0 + 4.0 * NOISE[3],
    }
)
LABELS = {
    "rises": "supported",
    "falls": "supported",
    "differs": "supported",
    "holds": "supported",
    "excluded": "equivalent",
    "open": "inconclusive",
}
CLAIMS = {
    "both": Claim(text="", hypotheses=("rises", "falls")),
    "either": Claim(text="", hypotheses=("rises", "open"), rule="any"),
    "same": Claim(text="", hypotheses=("holds",), rule="holds"),
}


def judged(hypotheses, runs, by=judge, gates=(), multiplicity=MULTIPLICITY, seeds=SEEDS):
    return by(hypotheses, dict(gates), runs, seeds, multiplicity=multiplicity, advise=False)


def proved(by=judge, hypotheses=HYPOTHESES, runs=RUNS, claims=CLAIMS, before=None):
    again = functools.partial(judged, by=by)
    verdicts = before or again(hypotheses, runs)
    return prove(hypotheses, claims, runs, SEEDS, verdicts, again, MULTIPLICITY)


def faults(proofs):
    """(name, mutant) of each that did not change as it must."""
    return {
        (name, mutant)
        for group in ("hypotheses", "claims")
        for name, of in proofs[group].items()
        for mutant, proof in of.items()
        if proof["outcome"] == "unchanged"
    }


def test_verdicts_of_a_right_judge_change_as_they_must():
    proofs = proved()
    assert faults(proofs) == set()
    found = {
        name: {m: proof["to"] for m, proof in of.items()}
        for name, of in proofs["hypotheses"].items()
    }
    assert found["rises"] == {
        "copied": "supported",
        "relabelled": "refuted",
        "null": "equivalent",
        "effect": "supported",
        "opposite": "refuted",
        "certain": "supported",
        "unreachable": "inconclusive",
        "alpha": "inconclusive",
        "edited": "supported",
        "dropped": "failed",
    }
    assert found["holds"]["copied"] == found["holds"]["null"] == "supported"
    assert found["holds"]["certain"] == found["holds"]["effect"] == "refuted"
    assert found["holds"]["unreachable"] == "inconclusive"
    assert found["differs"]["opposite"] == "supported"
    claims = {
        name: {m: proof["to"] for m, proof in of.items()} for name, of in proofs["claims"].items()
    }
    assert claims["both"]["certain"] == "supported"
    assert claims["both"]["null"] == "equivalent"
    assert {of["dropped"] for of in claims.values()} == {"failed"}
    for name, of in proofs["hypotheses"].items():
        assert {proof["from"] for proof in of.values()} == {LABELS[name]}
    assert proofs["outcomes"]["refused"] == len(HYPOTHESES) + len(CLAIMS)


def broken_rule(monkeypatch, **forced):
    monkeypatch.setattr(reasons, "decide", lambda **given: decide(**(given | forced)))


def test_a_rule_that_ignores_p_is_found(monkeypatch):
    broken_rule(monkeypatch, p_adjusted=0.0)
    found = faults(proved())
    assert {("rises", "unreachable"), ("falls", "unreachable"), ("differs", "unreachable")} <= found


def test_a_rule_that_ignores_the_direction_is_found(monkeypatch):
    broken_rule(monkeypatch, direction="differs")
    found = faults(proved())
    assert {("rises", "relabelled"), ("rises", "opposite"), ("falls", "opposite")} <= found


def test_a_rule_that_needs_no_smallest_effect_is_found(monkeypatch):
    broken_rule(monkeypatch, smallest_effect=1e-9)
    assert ("holds", "null") in faults(proved())


def test_a_rule_that_supports_everything_is_found(monkeypatch):
    monkeypatch.setattr(reasons, "decide", lambda **given: ("supported", ()))
    found = faults(proved())
    assert {(name, "null") for name in HYPOTHESES if name != "holds"} <= found
    assert ("both", "null") in found


def test_a_rule_that_supports_nothing_is_found(monkeypatch):
    monkeypatch.setattr(reasons, "decide", lambda **given: ("inconclusive", ()))
    found = faults(proved())
    assert {("rises", "effect"), ("rises", "certain"), ("holds", "null")} <= found


def test_a_judge_that_leaves_out_seeds_without_a_run_is_found(monkeypatch):
    monkeypatch.setattr(judging, "problems_of", lambda *given: [])
    assert {(name, "dropped") for name in HYPOTHESES} <= faults(proved())


def test_a_judge_that_pairs_no_seeds_is_found(monkeypatch):
    pairs_of = judging.pairs_of

    def absolute(*given):
        return tuple(
            pair._replace(difference=pair.difference and abs(pair.difference))
            for pair in pairs_of(*given)
        )

    monkeypatch.setattr(judging, "pairs_of", absolute)
    assert ("falls", "relabelled") in faults(proved())


def test_a_judge_that_always_says_the_same_is_found():
    first = judge(HYPOTHESES, {}, RUNS, SEEDS)
    found = faults(proved(lambda *given, **more: first))
    assert {
        ("rises", mutant) for mutant in EXPLAINED if mutant not in ("copied", "effect", "certain")
    } <= found
    assert ("rises", "effect") in found
    assert ("rises", "copied") not in found


def test_verdicts_that_are_not_of_these_runs_are_found():
    others = judge(
        HYPOTHESES,
        {},
        runs_of(dict.fromkeys(("rising", "falling", "alike", "noisy"), NOISE[9])),
        SEEDS,
    )
    assert ("rises", "copied") in faults(proved(before=others))


def test_nothing_is_asked_of_a_verdict_whose_data_are_not_all_there():
    left = {place: run for place, run in RUNS.items() if place != ("rising", 3)}
    proofs = proved(runs=left)
    assert faults(proofs) == set()
    of = proofs["hypotheses"]["rises"]
    assert {proof["outcome"] for mutant, proof in of.items() if mutant != "copied"} == {"void"}
    assert of["null"]["text"] == "its data are not all there"


def test_equal_differences_and_zeros_are_no_faults():
    equal = {
        "rising": np.full(8, 2.0),
        "falling": np.zeros(8),
        "alike": np.zeros(8),
        "noisy": np.full(8, 0.25),
    }
    proofs = proved(runs=runs_of(equal))
    assert faults(proofs) == set()
    of = proofs["hypotheses"]
    assert of["rises"]["certain"]["text"] == "its data are so already"
    assert of["falls"]["relabelled"]["outcome"] == "void"
    # Their interval is the same at any alpha: only a label can change.
    assert of["rises"]["alpha"]["outcome"] == "as asked"
    assert of["falls"]["alpha"]["outcome"] == "void"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_seeds_are_no_faults(n):
    runs = {place: run for place, run in RUNS.items() if place[1] < n}
    again = functools.partial(judged, seeds=range(n))
    proofs = prove(HYPOTHESES, CLAIMS, runs, range(n), again(HYPOTHESES, runs), again, MULTIPLICITY)
    assert faults(proofs) == set()


@pytest.mark.parametrize("multiplicity", ["max-t", "holm", "fixed-sequence"])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_random_studies_have_no_faults(multiplicity, noise):
    by = Multiplicity(by=multiplicity)
    directions = ("rises", "falls", "differs", "holds")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        arms = {f"a{i}": rng.normal(rng.normal(), noise, 8).round(seed % 3 + 1) for i in range(6)}
        hypotheses = {
            f"h{i}": hypothesis(
                f"a{i}",
                directions[rng.integers(4)],
                family="f" if i % 2 else "g",
                secondary=bool(i == 5),
                test="t" if rng.random() < 0.2 else "signflip",
                minus_start=False,
            )
            for i in range(6)
        }
        hypotheses["sum"] = hypothesis(contrast={"a0": 0.5, "a1": 0.5, "baseline": -1.0})
        hypotheses["own"] = hypothesis(contrast=("a2",), control="")
        runs = runs_of(arms)
        gates = {"learned": Gate(arms=("a3",), metric="probe/knn", at_least=0.0)}

        again = functools.partial(judged, gates=gates, multiplicity=by)
        proofs = prove(hypotheses, {}, runs, SEEDS, again(hypotheses, runs), again, by)
        assert faults(proofs) == set()


def test_each_mutant_changes_its_own_hypothesis_and_no_other():
    own, runs = with_own_metrics(HYPOTHESES, RUNS)
    given = {"rises": [p.difference for p in judge(own, {}, runs, SEEDS)["rises"].pairs]}
    changed = judge(
        *mutated("effect", own, runs, SEEDS, given)[:1],
        {},
        mutated("effect", own, runs, SEEDS, given)[1],
        SEEDS,
    )
    before = judge(own, {}, runs, SEEDS)
    assert changed["rises"].mean == pytest.approx(2.0)
    assert changed["rises"].standard_deviation == pytest.approx(before["rises"].standard_deviation)
    for name in HYPOTHESES.keys() - {"rises"}:
        assert changed[name].pairs == before[name].pairs


def test_planted_differences_have_the_mean_they_are_named_for():
    given = [0.3, -0.1, 0.7, 0.2]
    falls = hypothesis(direction="falls")
    assert np.mean(planted("null", falls, given)) == pytest.approx(0)
    assert np.mean(planted("effect", falls, given)) == pytest.approx(-2)
    assert np.mean(planted("opposite", falls, given)) == pytest.approx(2)
    assert np.std(planted("effect", falls, given)) == pytest.approx(np.std(given))
    for mutant, of_holds in (("certain", 2), ("unreachable", 0)):
        assert planted(mutant, falls, given) == [-2, -2, -2, -2]
        assert planted(mutant, hypothesis(direction="holds"), given) == [of_holds] * 4
    assert np.mean(planted("edited", falls, given)) == pytest.approx(np.mean(given) + 1 / 4)


def test_thirty_hypotheses_of_eight_seeds_cost_little():
    arms = {f"a{i}": 1.0 + NOISE[i] for i in range(30)}
    hypotheses = {f"h{i}": hypothesis(f"a{i}") for i in range(30)}
    before = time.process_time()
    proofs = proved(hypotheses=hypotheses, runs=runs_of(arms), claims={})
    assert time.process_time() - before < 5
    assert faults(proofs) == set()


@pytest.mark.parametrize(
    ("contrast", "paired"),
    [(("collapses", "baseline"), True), (("collapses", "baseline"), False), (("collapses",), True)],
)
def test_how_runs_end_can_be_proved_too(contrast, paired):
    ended = {
        ("collapses", seed): Run(status="collapsed" if seed else "finished", start={}, end={})
        for seed in SEEDS
    }
    given = {"metric": "", "endpoint": "collapsed", "smallest_effect": 0.5, "control": ""}
    one = hypothesis(contrast=contrast, paired=paired, **given)
    proofs = proved(hypotheses={"ends": one, **HYPOTHESES}, runs=RUNS | ended)
    assert faults(proofs) == set()
    of = proofs["hypotheses"]["ends"]
    assert of["copied"]["to"] == "supported"
    assert of["alpha"]["to"] != "supported"
    assert of["dropped"]["outcome"] == "refused"
    assert of["null"]["text"] == "how a run ends is not moved by an amount"
    assert of["relabelled"]["to"] == ("supported" if len(contrast) == 1 else "refuted")


def judge_that(mutant, change, name="rises"):
    """A judge that is right but for one hypothesis on one mutant, whose verdict it changes."""
    order = iter(["before", *EXPLAINED])

    def by(*given, **more):
        found = judge(*given, **more)
        if next(order) == mutant:
            found[name] = replace(found[name], **change(found[name]))
        return found

    return by


def proof_of(mutant, change, name="rises"):
    """What is said of one mutant on which a judge errs so; all other proofs are as they were."""
    of_family = {one: HYPOTHESES[one] for one in dict.fromkeys((name, "falls"))}
    proofs = proved(judge_that(mutant, change, name), hypotheses=of_family, claims={})
    assert faults(proofs) <= {(name, mutant)}
    return proofs["hypotheses"][name][mutant]


def moved_ends(low=0.0, high=0.0, of="interval"):
    return lambda verdict: {of: (getattr(verdict, of)[0] + low, getattr(verdict, of)[1] + high)}


@pytest.mark.parametrize(
    "change",
    [
        lambda verdict: {"label": "inconclusive"},
        lambda verdict: {"tags": ()},
        lambda verdict: {"mean": verdict.mean + 1e-6},
        lambda verdict: {"mean": None},
        lambda verdict: {"interval": None},
        lambda verdict: {"p": verdict.p * (1 + 1e-6)},
        lambda verdict: {"p_adjusted": verdict.p_adjusted * (1 - 1e-6)},
        lambda verdict: {"p_equivalence": verdict.p_equivalence - 1e-6},
        moved_ends(low=1e-6),
        moved_ends(high=-1e-6),
    ],
)
def test_a_copy_must_have_the_same_label_tags_and_numbers(change):
    proof = proof_of("copied", change)
    assert (proof["outcome"], proof["text"]) == ("unchanged", "judged otherwise")


def test_numbers_of_a_copy_may_differ_by_rounding():
    proof = proof_of("copied", lambda verdict: {"mean": verdict.mean + 1e-10})
    assert (proof["outcome"], proof["text"]) == ("as asked", "")


@pytest.mark.parametrize(
    ("mutant", "change", "text"),
    [
        ("relabelled", lambda verdict: {"mean": verdict.mean + 1e-6}, "mean and intervals"),
        ("relabelled", moved_ends(low=1e-6), "mean and intervals are not mirrored"),
        ("relabelled", moved_ends(high=1e-6, of="interval_equivalence"), "mean and intervals"),
        ("relabelled", lambda verdict: {"p": verdict.p + 1e-6}, "p is not the same"),
        ("relabelled", lambda verdict: {"p_adjusted": 0.5}, "p is not the same"),
        ("relabelled", lambda verdict: {"label": "supported"}, "supported in both directions"),
        ("edited", lambda verdict: {"mean": verdict.mean + 1e-6}, "the mean is not that"),
        ("alpha", moved_ends(low=9.0), "its interval is not wider"),
        ("alpha", moved_ends(high=-9.0), "its interval is not wider"),
        ("alpha", lambda verdict: {"label": "supported"}, "supported, though its p is above"),
        ("unreachable", lambda verdict: {"label": "supported"}, "supported, though its p cannot"),
        ("null", lambda verdict: {"label": "supported"}, "it is supported"),
        ("effect", lambda verdict: {"label": "inconclusive"}, "it is not supported"),
        ("effect", lambda verdict: {"label": "refuted"}, "it is not supported"),
        ("opposite", lambda verdict: {"label": "inconclusive"}, "it is not refuted"),
        ("opposite", lambda verdict: {"label": "supported"}, "it is supported"),
        ("certain", lambda verdict: {"label": "equivalent"}, "it is not supported"),
        ("dropped", lambda verdict: {"label": "inconclusive"}, "a run is missing, and it is not"),
    ],
)
def test_what_is_not_as_asked_of_a_mutant_is_said(mutant, change, text):
    proof = proof_of(mutant, change)
    assert proof["outcome"] == "unchanged"
    assert proof["text"].startswith(text)


@pytest.mark.parametrize(
    ("mutant", "label", "text"),
    [
        ("null", "inconclusive", "it is not supported"),
        ("effect", "supported", "it is supported"),
        ("effect", "inconclusive", "it is not refuted"),
        ("opposite", "supported", "it is supported"),
        ("certain", "inconclusive", "it is not refuted"),
        ("unreachable", "supported", "supported, though its p cannot be alpha"),
        ("alpha", "supported", "supported, though its p is above alpha"),
    ],
)
def test_what_predicts_no_change_is_asked_the_contrary(mutant, label, text):
    proof = proof_of(mutant, lambda verdict: {"label": label}, "holds")
    assert (proof["outcome"], proof["text"]) == ("unchanged", text)


def test_a_spread_that_hides_an_effect_asks_only_for_what_is_not_the_contrary():
    for mutant, label, is_fault in (
        ("effect", "inconclusive", False),
        ("effect", "refuted", True),
        ("opposite", "inconclusive", False),
        ("opposite", "supported", True),
        ("null", "refuted", False),
        ("certain", "inconclusive", True),
    ):
        found = proof_of(mutant, lambda verdict, label=label: {"label": label}, "open")
        assert (found["outcome"] == "unchanged") == is_fault, (mutant, label)


def test_a_mutant_that_keeps_its_label_says_which_numbers_changed():
    of = proved(claims={})["hypotheses"]["rises"]
    assert of["copied"]["text"] == ""
    assert of["edited"] == {
        "outcome": "as asked", "from": "supported", "to": "supported",
        "text": "mean, interval, p of equivalence",
    }  # fmt: skip
    assert of["null"] == {
        "outcome": "as asked", "from": "supported", "to": "equivalent", "text": "",
    }  # fmt: skip


def test_a_judge_to_which_nothing_changes_is_found_by_each_mutant_but_the_copy():
    first = judge(HYPOTHESES, {}, RUNS, SEEDS)
    of = proved(lambda *given, **more: first)["hypotheses"]["open"]
    assert {of[m]["text"] for m in ("alpha", "null", "opposite")} == {"nothing changed"}
    assert of["copied"]["outcome"] == "as asked"


@pytest.mark.parametrize(
    ("mutant", "claim", "label", "text"),
    [
        ("copied", "both", "inconclusive", "judged otherwise"),
        ("dropped", "both", "inconclusive", "runs are missing, and it is not failed"),
        ("null", "both", "supported", "it is supported"),
        ("effect", "same", "supported", "it is supported"),
        ("certain", "both", "refuted", "it is not supported"),
        ("certain", "same", "supported", "it is supported"),
    ],
)
def test_a_claim_that_does_not_follow_its_hypotheses_is_found(
    monkeypatch, mutant, claim, label, text
):
    order = iter(["before", *EXPLAINED])

    def claimed(*given):
        found = judge_claims(*given)
        if next(order) == mutant:
            found[claim] = replace(found[claim], label=label)
        return found

    monkeypatch.setattr(proving, "judge_claims", claimed)
    of_claim = {name: HYPOTHESES[name] for name in CLAIMS[claim].hypotheses}
    proofs = proved(hypotheses=of_claim, claims={claim: CLAIMS[claim]})
    assert faults(proofs) == {(claim, mutant)}
    assert proofs["claims"][claim][mutant]["text"] == text


def test_nothing_is_asked_of_a_claim_whose_data_are_not_all_there_or_whose_parts_are_open():
    of = proved()["claims"]["either"]
    assert of["certain"]["text"] == "its hypotheses are not all supported"
    assert (of["certain"]["outcome"], of["null"]["outcome"]) == ("void", "as asked")
    assert set(of) == {"copied", "null", "effect", "certain", "dropped"}
    left = {place: run for place, run in RUNS.items() if place != ("rising", 3)}
    claims = proved(runs=left)["claims"]
    assert {proof["text"] for proof in claims["both"].values()} == {
        "the data of its hypotheses are not all there"
    }
    assert claims["same"]["certain"]["outcome"] == "as asked"


def test_of_one_seed_only_that_it_is_there_is_asked():
    runs = {place: run for place, run in RUNS.items() if place[1] < 1}
    again = functools.partial(judged, seeds=SEEDS[:1])
    before = again(HYPOTHESES, runs)
    of = prove(HYPOTHESES, {}, runs, SEEDS[:1], before, again, MULTIPLICITY)["hypotheses"]["rises"]
    assert (of["dropped"]["outcome"], of["copied"]["outcome"]) == ("refused", "as asked")
    left = [proof["text"] for mutant, proof in of.items() if mutant not in ("dropped", "copied")]
    assert set(left) == {"one seed has no statistics"}


@pytest.mark.parametrize(("n", "change"), [(2, {}), (6, {"alpha": 0.02})])
def test_so_few_seeds_are_proved_too_and_nothing_is_asked_that_signs_cannot_show(n, change):
    runs = {place: run for place, run in RUNS.items() if place[1] < n}
    hypotheses = {"rises": hypothesis(**change)}
    again = functools.partial(judged, seeds=SEEDS[:n])
    before = again(hypotheses, runs)
    proofs = prove(hypotheses, {}, runs, SEEDS[:n], before, again, MULTIPLICITY)
    assert faults(proofs) == set()
    of = proofs["hypotheses"]["rises"]
    assert of["effect"]["to"] == of["opposite"]["to"] == "inconclusive"
    assert not any(proof["outcome"] == "void" for proof in of.values())


def test_a_judge_that_supports_what_too_few_seeds_show_is_found():
    runs = {place: run for place, run in RUNS.items() if place[1] < 5}
    hypotheses = {"rises": HYPOTHESES["rises"]}
    by = judge_that("effect", lambda _: {"label": "supported"})
    again = functools.partial(judged, by=by, seeds=SEEDS[:5])
    before = again(hypotheses, runs)
    proofs = prove(hypotheses, {}, runs, SEEDS[:5], before, again, MULTIPLICITY)
    assert faults(proofs) == {("rises", "effect")}


def test_values_since_step_0_are_changed_like_others():
    started = {place: replace(run, start={"probe/knn": 0.25}) for place, run in RUNS.items()}
    hypotheses = {"since": hypothesis(minus_start=True), "holds": hypothesis("alike", "holds")}
    proofs = proved(hypotheses=hypotheses, runs=started, claims={})
    assert faults(proofs) == set()
    assert proofs["hypotheses"]["since"]["null"]["to"] == "equivalent"


@pytest.mark.parametrize("by", ["max-t", "holm", "fixed-sequence"])
def test_what_so_few_signs_cannot_reach_in_a_family_is_not_asked(by):
    multiplicity = Multiplicity(by=by)
    runs = {place: run for place, run in RUNS.items() if place[1] < 6}
    del runs["noisy", 0]
    hypotheses = {"rises": HYPOTHESES["rises"], "open": HYPOTHESES["open"]}
    again = functools.partial(judged, seeds=SEEDS[:6], multiplicity=multiplicity)
    before = again(hypotheses, runs)
    proofs = prove(hypotheses, {}, runs, SEEDS[:6], before, again, multiplicity)
    assert faults(proofs) == set()
    to = {"max-t": "inconclusive", "holm": "inconclusive", "fixed-sequence": "supported"}[by]
    assert proofs["hypotheses"]["rises"]["certain"]["to"] == to


def test_one_trial_is_equal_at_any_alpha():
    same = {("alike", seed): replace(RUNS["baseline", seed], key="baseline") for seed in SEEDS}
    far = runs_of({"control": 9.0 + 0.01 * NOISE[4]})
    hypotheses = {"holds": hypothesis("alike", "holds", test="t")}
    proofs = proved(hypotheses=hypotheses, runs=RUNS | far | same, claims={})
    assert faults(proofs) == set()
    assert proofs["hypotheses"]["holds"]["alpha"]["to"] == "supported"


@pytest.mark.parametrize("by", ["max-t", "holm", "fixed-sequence"])
def test_what_signs_can_reach_in_a_family_is_asked_of_each_method(by):
    multiplicity = Multiplicity(by=by)
    hypotheses = {name: HYPOTHESES[name] for name in ("rises", "falls")}
    order = iter(["before", *EXPLAINED])

    def again(*given):
        found = judged(*given, multiplicity=multiplicity)
        if next(order) == "certain":
            found["falls"] = replace(found["falls"], label="inconclusive")
        return found

    before = again(hypotheses, RUNS)
    proofs = prove(hypotheses, {}, RUNS, SEEDS, before, again, multiplicity)
    assert faults(proofs) == {("falls", "certain")}


def test_an_effect_against_the_prediction_must_be_refuted_though_one_of_s_would_be_open():
    # The interval reaches further than s to each side of the mean, and less far than 3 s.
    loose = {"loose": hypothesis("loose")}
    runs = RUNS | runs_of({"loose": 1.0 + 2.0 * NOISE[5] / NOISE[5].std()})
    for label, found in (("refuted", set()), ("inconclusive", {("loose", "opposite")})):
        by = judge_that("opposite", lambda verdict, label=label: {"label": label}, "loose")
        assert faults(proved(by, hypotheses=loose, runs=runs, claims={})) == found


def test_many_seeds_may_show_equality_at_the_least_alpha():
    seeds = range(24)
    noise = 0.01 * np.random.default_rng(4).standard_normal((2, 24))
    values = {"baseline": np.zeros(24), "alike": noise[0], "control": 9.0 + noise[1]}
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"probe/knn": float(of[seed])})
        for arm, of in values.items()
        for seed in seeds
    }
    hypotheses = {"holds": hypothesis("alike", "holds", test="t")}
    again = functools.partial(judged, seeds=seeds)
    before = again(hypotheses, runs)
    proofs = prove(hypotheses, {}, runs, seeds, before, again, MULTIPLICITY)
    assert faults(proofs) == set()
    assert proofs["hypotheses"]["holds"]["alpha"]["to"] == "supported"


@pytest.mark.parametrize(("n", "least"), [(8, 2 / 2**8), (20, 4 / 65_536)])
@pytest.mark.parametrize("by", ["max-t", "holm"])
def test_a_certain_effect_has_the_least_p_of_its_signs_or_of_random_flips(n, least, by):
    after = {name: SimpleNamespace(label="supported", p=0.01, n=n) for name in ("rises", "falls")}
    family = {name: HYPOTHESES[name].model_copy(update={"family": "one"}) for name in after}
    given = dict.fromkeys(after, [1.0] * n)
    case = proving._Case("certain", family, after, after, given, Multiplicity(by=by), None)
    assert case._least("rises") == least * (1 if by == "max-t" else 2)


@pytest.mark.parametrize(
    ("by", "least"), [("max-t", 2 * 2 / 2**8), ("holm", 2 * 2 / 2**8), ("fixed-sequence", 1.0)]
)
def test_one_of_a_family_that_failed_takes_its_share_of_alpha_with_it(by, least):
    after = {
        name: SimpleNamespace(label=label, p=0.01, n=8)
        for name, label in (("rises", "supported"), ("falls", "failed"))
    }
    family = {name: HYPOTHESES[name].model_copy(update={"family": "one"}) for name in after}
    given = dict.fromkeys(after, [1.0] * 8)
    case = proving._Case("certain", family, after, after, given, Multiplicity(by=by), None)
    assert case._least("rises") == least


@pytest.mark.parametrize(
    ("by", "least"), [("max-t", 2 * 0.02), ("holm", 2 * 0.01), ("fixed-sequence", 0.02)]
)
def test_a_planted_effect_has_an_adjusted_p_of_these_at_most(by, least):
    # By max-T that of the family, by Holm its own for all, in a sequence the largest so far.
    ps = {"rises": 0.01, "falls": 0.02}
    after = {name: SimpleNamespace(label="supported", p=p, n=8) for name, p in ps.items()}
    family = {name: HYPOTHESES[name].model_copy(update={"family": "one"}) for name in after}
    for mutant, given in (("effect", dict.fromkeys(after, [1.0] * 8)), ("certain", {})):
        case = proving._Case(mutant, family, after, after, given, Multiplicity(by=by), None)
        certain = by == "holm" and mutant == "certain"
        assert case._least("rises") == (2 * 2 / 2**8 if certain else least)


@pytest.mark.parametrize(("by", "most"), [("max-t", 0.02), ("holm", 0.02), ("fixed-sequence", 1.0)])
def test_over_looks_a_planted_effect_must_be_found_by_holm_where_its_p_allows_it(by, most):
    after = {name: SimpleNamespace(label="supported", p=0.01, n=8) for name in ("rises", "falls")}
    family = {name: HYPOTHESES[name].model_copy(update={"family": "one"}) for name in after}
    design = Design(looks=(6, 8), spending="obf")
    case = proving._Case("effect", family, after, after, {}, Multiplicity(by=by), design)
    assert case._least("rises") == most


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [("any", "void"), ("all", "unchanged"), ("rises", "unchanged"), ("open", "as asked")],
)
def test_one_wrong_part_excludes_a_claim_on_all_or_on_it_and_not_one_on_any(rule, outcome):
    # Of a null both would be wrong, were the one without its own data not left as it is.
    claim = Claim(text="", hypotheses=("rises", "open"), rule=rule)
    label = SimpleNamespace(label="supported")
    after = {"rises": label, "open": label}
    case = proving._Case("null", HYPOTHESES, after, after, {"rises": [0.0]}, MULTIPLICITY, None)
    proof = case.proof_of_claim(claim, label, label)
    assert proof.outcome == outcome
    assert proof.before == proof.after == "supported"


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_contrary_must_be_refuted_up_to_a_spread_whose_interval_is_3_s_at_the_level(level):
    looks = () if level == 0.05 else (SimpleNamespace(level=level, level_equivalence=level),)
    after = SimpleNamespace(label="inconclusive", looks=looks, n=8)
    for reach, fault in ((2.9, "it is not refuted"), (3.1, "")):
        error = reach / scipy.stats.t.isf(level / 2, 7)
        given = {"rises": error * 8**0.5 * NOISE[0] / NOISE[0].std(ddof=1)}
        case = proving._Case("opposite", HYPOTHESES, {}, {}, given, MULTIPLICITY, None)
        assert case._planted_fault("rises", after) == fault


@pytest.mark.parametrize(
    ("spending", "fault"), [("obf", "it is not refuted"), ("pocock", "it is not refuted"),
                            ("e-process", "")],
)  # fmt: skip
def test_an_e_process_whose_intervals_are_not_those_of_t_need_not_refute(spending, fault):
    looks = (SimpleNamespace(level=0.05, level_equivalence=0.05),)
    after = SimpleNamespace(label="inconclusive", looks=looks, n=8)
    design = Design(looks=(7, 8), spending=spending)
    given = {"rises": 0.1 * NOISE[0]}
    case = proving._Case("opposite", HYPOTHESES, {}, {}, given, MULTIPLICITY, design)
    assert case._planted_fault("rises", after) == fault


@pytest.mark.parametrize(
    ("mutant", "differences", "is_so"),
    [
        ("certain", [2.0] * 8, True),
        ("certain", [-2.0] * 8, False),
        ("null", [1.0, -1.0] * 4, True),
        ("null", [1.5, -0.5] * 4, False),
        ("effect", [3.0, 1.0] * 4, True),
        ("opposite", [3.0, 1.0] * 4, False),
    ],
)
def test_nothing_is_planted_where_differences_are_so_already(mutant, differences, is_so):
    before = SimpleNamespace(label="supported", n=8, seeds=SEEDS, p_equivalence=1.0)
    case = proving._Case(
        mutant, HYPOTHESES, {}, {"rises": before}, {"rises": differences}, MULTIPLICITY, None
    )
    assert case._void("rises", before) == ("its data are so already" if is_so else "")


@pytest.mark.parametrize(
    ("mutant", "name"), [("effect", "rises"), ("opposite", "rises"), ("null", "holds")]
)
def test_a_look_that_was_held_against_no_level_must_decide_nothing(mutant, name):
    after = SimpleNamespace(
        label="inconclusive", n=8, p=0.01, sensitivity=9.0,
        control=SimpleNamespace(found="differs"),
        looks=(SimpleNamespace(level=None, level_equivalence=None),),
    )  # fmt: skip
    given = {name: 0.1 * NOISE[0]}
    stated = {name: HYPOTHESES[name]}
    case = proving._Case(mutant, stated, {}, {name: after}, given, MULTIPLICITY, None)
    assert case._planted_fault(name, after) == ""


ELSEWHERE = {"seeds": SEEDS[:6]}


@pytest.mark.parametrize(
    ("mutant", "stated", "before", "after", "says"),
    [
        ("copied", {}, {"label": "failed", "n": 1}, ELSEWHERE, ""),
        ("dropped", {}, {"label": "failed"}, {}, "its data are not all there"),
        ("dropped", {}, {"n": 1}, ELSEWHERE, ""),
        ("alpha", {}, {"n": 1}, {}, "one seed has no statistics"),
        ("alpha", {}, {"n": 2}, {}, ""),
        ("alpha", {"alpha": 1e-6}, {}, {}, "its alpha is the least there is"),
        ("alpha", {"alpha": 2e-6}, {}, {}, ""),
        ("relabelled", {"alpha": 1e-6}, {}, {}, ""),
        ("alpha", {}, {}, ELSEWHERE, "its design stops elsewhere"),
        ("relabelled", {}, {}, ELSEWHERE, "its design stops elsewhere"),
        ("certain", {}, {}, ELSEWHERE, "how a run ends is not moved by an amount"),
        ("unreachable", {}, {}, ELSEWHERE, "how a run ends is not moved by an amount"),
        ("relabelled", {}, {"mean": 1e-9}, {}, "its mean is 0, which is its own mirror image"),
        ("relabelled", {}, {"mean": -2e-9}, {}, ""),
        ("alpha", {}, {"mean": 0.0}, {}, ""),
        (
            "relabelled",
            {"metric": "", "endpoint": "collapsed", "contrast": ("rising",), "control": ""},
            {},
            {},
            "it is compared with nothing",
        ),
        ("alpha", {"contrast": ("rising",)}, {}, {}, ""),
        ("relabelled", {"contrast": ("rising",)}, {}, {}, ""),
    ],
)
def test_nothing_is_asked_where_a_mutant_could_not_change_a_verdict(
    mutant, stated, before, after, says
):
    given = {"label": "inconclusive", "n": 8, "seeds": SEEDS, "mean": 2.0, "p_equivalence": 1.0}
    given |= {"standard_deviation": 0.1} | before
    found = {"rises": SimpleNamespace(**given | after)}
    case = proving._Case(mutant, {"rises": hypothesis(**stated)}, {}, found, {}, MULTIPLICITY, None)
    assert case._void("rises", SimpleNamespace(**given)) == says


def test_what_is_unreachable_is_asked_where_differences_are_so_already_too():
    before = SimpleNamespace(label="supported", n=8, seeds=SEEDS, p_equivalence=1.0)
    given = {"rises": [2.0] * 8}
    case = proving._Case(
        "unreachable", HYPOTHESES, {}, {"rises": before}, given, MULTIPLICITY, None
    )
    assert case._void("rises", before) == ""


@pytest.mark.parametrize(
    ("mutant", "name", "most", "fault"),
    [
        ("effect", "rises", 2, "it is not supported"),
        ("opposite", "rises", 3, "it is not refuted"),
        ("effect", "holds", 1, "it is not refuted"),
        ("null", "holds", 1, "it is not supported"),
        ("opposite", "differs", 2, "it is not supported"),
    ],
)
def test_a_planted_mean_decides_up_to_a_spread_whose_interval_reaches_s_or_0(
    mutant, name, most, fault
):
    after = SimpleNamespace(
        label="inconclusive", looks=(), n=8, p=0.01, sensitivity=9.0,
        control=SimpleNamespace(found="differs"),
    )  # fmt: skip
    # A mean of no change is shown by the narrower interval.
    tail = 0.05 if mutant == "null" else 0.025
    for reach, says in ((0.99 * most, fault), (1.01 * most, "")):
        error = reach / scipy.stats.t.isf(tail, 7)
        given = {name: error * 8**0.5 * NOISE[0] / NOISE[0].std(ddof=1)}
        case = proving._Case(
            mutant, {name: HYPOTHESES[name]}, {}, {name: after}, given, MULTIPLICITY, None
        )
        assert case._planted_fault(name, after) == says


@pytest.mark.parametrize(
    ("change", "is_void"),
    [
        ({"label": "supported"}, False),
        ({"label": "refuted"}, True),
        ({"label": "refuted", "standard_deviation": 0.1}, False),
        # Equal to the last digit, which needs no proof: supported at any alpha.
        ({"label": "supported", "p_equivalence": 0}, True),
    ],
)
def test_of_equal_differences_only_a_label_that_rests_on_p_changes_with_alpha(change, is_void):
    equal = {"n": 8, "seeds": SEEDS, "standard_deviation": 0.0, "p_equivalence": 1.0}
    before = SimpleNamespace(**equal | change)
    case = proving._Case("alpha", HYPOTHESES, {}, {"rises": before}, {}, MULTIPLICITY, None)
    assert bool(case._void("rises", before)) == is_void


@pytest.mark.parametrize(
    ("found", "sensitivity", "fault"),
    [
        ("differs", 1.0, "it is not supported"),
        ("differs", 0.9, ""),
        ("differs", None, ""),
        ("alike", 1.0, ""),
    ],
)
def test_no_change_must_be_supported_where_its_control_and_an_arm_show_one(
    found, sensitivity, fault
):
    control = SimpleNamespace(found=found)
    after = SimpleNamespace(
        label="inconclusive", looks=(), n=8, control=control, sensitivity=sensitivity
    )
    given = {"holds": 0.2 * NOISE[2]}
    case = proving._Case("null", HYPOTHESES, {}, {}, given, MULTIPLICITY, None)
    assert case._planted_fault("holds", after) == fault


@pytest.mark.parametrize(
    ("p", "fault"),
    [(2e-6, "supported, though its p cannot be alpha"), (1e-6, ""), (None, "")],
)
def test_equal_differences_may_have_any_p_of_t_but_none_above_alpha_is_supported(p, fault):
    after = SimpleNamespace(label="supported", n=8, p_adjusted=p)
    case = proving._Case("unreachable", HYPOTHESES, {}, {}, {}, MULTIPLICITY, None)
    assert case._fault("excluded", after, after) == fault


@pytest.mark.parametrize(("direction", "of"), [("rises", "p_adjusted"), ("holds", "p_equivalence")])
@pytest.mark.parametrize(
    ("p", "fault"), [(2e-6, "supported, though its p is above alpha"), (1e-6, ""), (None, "")]
)
def test_at_the_least_alpha_only_a_p_above_it_is_no_support(direction, of, p, fault):
    after = SimpleNamespace(
        **{"label": "supported", "interval": None, "p_adjusted": 0.5, "p_equivalence": 0.5, of: p}
    )
    one = hypothesis(direction=direction)
    assert proving._alpha_fault(one, SimpleNamespace(interval=None), after) == fault


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("label", "refuted", "label"),
        ("mean", 1.1, "mean"),
        ("interval", (0.5, 1.6), "interval"),
        ("p", 0.02, "p"),
        ("p_adjusted", 0.04, "p"),
        ("p_equivalence", 0.8, "p of equivalence"),
    ],
)
def test_what_changed_of_a_verdict_is_said_by_its_name(field, value, said):
    stated = {
        "label": "supported", "mean": 1.0, "interval": (0.5, 1.5), "p": 0.01, "p_adjusted": 0.03,
        "p_equivalence": 0.5,
    }  # fmt: skip
    before, after = SimpleNamespace(**stated), SimpleNamespace(**stated | {field: value})
    assert proving._changes(HYPOTHESES["rises"], before, after) == said


def test_a_proof_is_stored_from_one_label_to_another():
    assert proving.Proof(outcome="as asked", before="supported", after="refuted").to_json() == {
        "outcome": "as asked", "from": "supported", "to": "refuted", "text": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("contrast", "moves"),
    [
        (("a", "baseline"), {"a": 1.0}),
        ({"a": 0.5, "b": 0.5, "baseline": -1.0}, {"a": 1.0, "b": 1.0}),
        ({"a": 2.0, "baseline": -2.0}, {"a": 0.5}),
        ({"a": 0.25, "b": 0.25}, {"a": 2.0, "b": 2.0}),
        ({"baseline": -1.0}, {"baseline": -1.0}),
    ],
)
def test_an_edited_contrast_moves_by_s_at_the_first_seed_and_its_runs_are_no_longer_that_trial(
    contrast, moves
):
    one = hypothesis(contrast=contrast, control="")
    runs = {
        (arm, seed): Run(status="finished", start={}, end={"probe/knn": 3.0, "m": 1.0}, key="k")
        for arm in ("a", "b", "baseline")
        for seed in range(3)
    }
    # The third seed is beyond the look of its verdict.
    _, changed = mutated("edited", {"h": one}, runs, range(3), {"h": [5.0, 5.0]})
    for (arm, seed), run in changed.items():
        by = moves.get(arm, 0.0) if seed == 0 else 0.0
        assert run.end == {"probe/knn": 3.0 + by, "m": 1.0}
        assert run.key == ("" if arm in moves and seed < 2 else "k")


def test_dropped_are_the_first_runs_of_arms_that_are_compared_and_no_others():
    stated = {name: HYPOTHESES[name] for name in ("rises", "falls")}
    changed, left = mutated("dropped", stated, RUNS, SEEDS, {})
    assert changed == stated
    gone = {("rising", 0), ("falling", 0), ("baseline", 0)}
    assert left == {place: run for place, run in RUNS.items() if place not in gone}


@pytest.mark.parametrize("mutant", ["alpha", "unreachable", "copied", "null"])
def test_two_mutants_state_another_alpha_and_nothing_else(mutant):
    alpha = {"alpha": 1e-6} if mutant in ("alpha", "unreachable") else {}
    changed, runs = mutated(mutant, HYPOTHESES, RUNS, SEEDS, {})
    assert changed == {n: one.model_copy(update=alpha) for n, one in HYPOTHESES.items()}
    assert runs == RUNS


def test_values_are_moved_of_metrics_that_have_one_at_every_seed():
    ends = hypothesis(metric="", endpoint="collapsed", smallest_effect=0.5, control="")
    stated = {"whole": HYPOTHESES["rises"], "lost": HYPOTHESES["falls"], "ends": ends}
    stated |= {"few": HYPOTHESES["differs"]}
    verdicts = {
        name: SimpleNamespace(label=label, n=n, seeds=SEEDS)
        for name, label, n in (
            ("whole", "refuted", 8),
            ("lost", "failed", 8),
            ("ends", "supported", 8),
            ("few", "inconclusive", 7),
        )
    }
    assert movable(verdicts, stated) == ["whole"]


def test_each_of_two_metrics_has_a_copy_of_its_own_with_the_same_values():
    stated = {name: hypothesis(metric_against="probe/token", control="") for name in ("a", "b")}
    values = {"rising": (0.75, 0.5), "baseline": (0.25, 0.125)}
    runs = {
        (arm, 0): Run(status="finished", start={}, end={"probe/knn": knn, "probe/token": token})
        for arm, (knn, token) in values.items()
    }
    own, copies = with_own_metrics(stated, runs)
    metrics = [metric for one in own.values() for metric in (one.metric, one.metric_against)]
    assert len({*metrics, "probe/knn", "probe/token"}) == 6
    for name in stated:
        (pair,) = pairs_of(own[name], copies, [0])
        assert pair == pairs_of(stated[name], runs, [0])[0] == Pair(0, 0.75, 0.125, 0.625)


def test_two_metrics_stay_with_their_arms_where_the_sides_are_exchanged():
    one = hypothesis(metric_against="probe/token", control="")
    mirrored = mutated("relabelled", {"h": one}, {}, SEEDS, {})[0]["h"]
    assert mirrored.weights == {"rising": -1.0, "baseline": 1.0}
    assert mirrored.metric_of("rising") == "probe/knn"
    assert mirrored.metric_of("baseline") == "probe/token"
