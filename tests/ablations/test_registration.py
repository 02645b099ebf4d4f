"""A chain of registrations says of each hypothesis what was known when it was stated.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import copy
import json

import pytest

from ablations.changes import changes
from ablations.registration import Entry, entry_of, written
from ablations.spec import Hypothesis
from ablations.stated import lines_of, stated, stated_claims

ARMS = {"baseline": {}, "none": {"model.cls_position": "none"}, "deep": {"model.depth": 5}}
SEEDS = (0, 1, 2, 3, 4, 5)


def hypothesis(arm, **fields):
    given = {
        "metric": "knn/cls_top1", "contrast": (arm, "baseline"), "direction": "rises",
        "smallest_effect": 0.05, "family": arm,
    }  # fmt: skip
    return Hypothesis(**given | fields).model_dump(mode="json")


def key(arm, seed, release="1"):
    return f"{arm}-{seed}-{release}"


FIRST = {
    "study": "s",
    "hypotheses_sha256": "0",
    "resolved": {
        "name": "s", "recipe": "digits_tiny", "seeds": list(SEEDS), "arms": ARMS,
        "hypotheses": {"none_rises": hypothesis("none"), "deep_rises": hypothesis("deep")},
        "claims": {"both": {"text": "more is better", "hypotheses": ["none_rises", "deep_rises"]}},
        "gates": {"learns": {"arms": ["deep"], "metric": "knn/cls_top1", "at_least": 0.5}},
        "resources": {"workers": 1},
    },
    "arms": {arm: {"change": change} for arm, change in ARMS.items()},
    "trials": [{"key": key(arm, seed), "arm": arm, "seed": seed} for arm in ARMS for seed in SEEDS],
    "config": {"steps": 500, "data": {"source": "a"}, "model": {"depth": 3}},
    "dataset": {"digest": "d"},
    "code": {"trainers.training.step": "1"},
    "analysis": {"ablations.verdicts.rule": "1"},
    "packages": {"torch": "2.14", "ray": "2.50"},
    "created": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
EVERYTHING = [key(arm, seed) for arm in ARMS for seed in SEEDS]


def chain_of(*statements, known):
    """The chain of these statements, in which entry by entry these results were known."""
    chain = []
    for number, (content, keys) in enumerate(zip(statements, known, strict=True), 1):
        entry = entry_of(
            written(
                {
                    **content,
                    "number": number,
                    "parent": chain[-1].digest if chain else None,
                    "reason": "so" if chain else None,
                    "known": dict.fromkeys(keys, "0" * 64),
                }
            )
        )
        chain.append(entry)
    return chain


def changed(change):
    content = copy.deepcopy(FIRST)
    change(content)
    return content


def with_seeds(*seeds):
    def change(content):
        content["resolved"]["seeds"] = list(seeds)
        content["trials"] = [
            {"key": key(arm, seed), "arm": arm, "seed": seed} for arm in ARMS for seed in seeds
        ]

    return change


def longer(content):
    content["config"]["steps"] = 700
    for trial in content["trials"]:
        trial["key"] += "-longer"


def arm_redefined(content):
    content["resolved"]["arms"]["none"] = {"model.cls_position": "random"}
    for trial in content["trials"]:
        if trial["arm"] == "none":
            trial["key"] += "-random"


def other_recipe(content):
    content["resolved"]["recipe"] = "photographs_tiny"
    longer(content)


def turned_round(content):
    content["resolved"]["hypotheses"]["none_rises"]["direction"] = "falls"


def other_data(content):
    content["dataset"]["digest"] = "e"
    longer(content)


def other_claim(content):
    content["resolved"]["claims"]["both"]["rule"] = "any"


def smaller_effect(content):
    content["resolved"]["hypotheses"]["none_rises"]["smallest_effect"] = 0.01


def other_words(content):
    content["resolved"]["hypotheses"]["none_rises"]["claim"] = "less is better"


def with_looks(content):
    content["resolved"]["design"] = {"looks": [4, 6], "spending": "obf", "futility": ""}


ATTACKS = [
    (with_looks, "design None -> {'looks': [4, 6], 'spending': 'obf', 'futility': ''}"),
    (with_seeds(0, 2, 3, 5, 7), "seeds 0, 1, 2, 3, 4, 5 -> 0, 2, 3, 5, 7"),
    (longer, "steps 500 -> 700"),
    (arm_redefined, "arm none: model.cls_position none -> random"),
    (other_recipe, "recipe digits_tiny -> photographs_tiny"),
    (turned_round, "hypothesis none_rises: direction rises -> falls"),
    (other_data, "data: sha256 d -> e"),
    (other_claim, "claim both: rule all -> any"),
    (smaller_effect, "hypothesis none_rises: smallest_effect 0.05 -> 0.01"),
    (other_words, "hypothesis none_rises: claim  -> less is better"),
]


def words(chain):
    return {name: one.word for name, one in stated(chain).items()}


def test_what_was_stated_before_any_result_is_confirmatory():
    chain = chain_of(FIRST, known=[[]])
    assert words(chain) == {"none_rises": "confirmatory", "deep_rises": "confirmatory"}
    assert stated(chain)["none_rises"].why == (
        "stated in registration 1 of 2026-01-01T00:00:00+00:00, before any result of its arms"
    )


@pytest.mark.parametrize(("attack", "line"), ATTACKS)
def test_every_change_is_said_in_a_line(attack, line):
    before, now = chain_of(FIRST, changed(attack), known=[[], []])
    assert line in changes(before, now)
    assert changes(before, before) == []


@pytest.mark.parametrize(("attack", "line"), ATTACKS)
def test_what_was_changed_when_results_of_its_arms_existed_is_exploratory(attack, line):
    chain = chain_of(FIRST, changed(attack), known=[[], EVERYTHING])
    found = stated(chain)["none_rises"]
    assert found.word == "exploratory"
    assert "registration 2 of 2026-01-01T00:00:00+00:00, when 12 results" in found.why


@pytest.mark.parametrize(("attack", "line"), ATTACKS)
def test_what_was_changed_before_any_result_is_amended(attack, line):
    found = stated(chain_of(FIRST, changed(attack), known=[[], []]))["none_rises"]
    assert found.word == "amended"
    assert "changed in registration 2" in found.why
    assert "(so), before any result of its arms" in found.why


@pytest.mark.parametrize("attack", [turned_round, smaller_effect, other_words])
def test_a_change_of_one_hypothesis_leaves_those_of_other_families_as_they_were(attack):
    chain = chain_of(FIRST, changed(attack), known=[[], EVERYTHING])
    assert words(chain) == {"none_rises": "exploratory", "deep_rises": "confirmatory"}


def without_another_arm(content):
    content["resolved"] |= {"claims": {}, "gates": {}}
    del content["resolved"]["arms"]["deep"], content["resolved"]["hypotheses"]["deep_rises"]
    content["trials"] = [one for one in content["trials"] if one["arm"] != "deep"]


def test_leaving_out_an_arm_that_moved_the_end_point_restates_what_it_showed_sensitive():
    both = changed(lambda content: content["resolved"].update(claims={}, gates={}))
    one = changed(without_another_arm)
    left = chain_of(both, one, known=[[], EVERYTHING])
    assert words(left) == {"none_rises": "exploratory"}
    added = chain_of(one, both, known=[[], EVERYTHING])
    assert words(added) == {"none_rises": "confirmatory", "deep_rises": "exploratory"}


def no_gate(content):
    content["resolved"]["gates"] = {}


def looser_gate(content):
    content["resolved"]["gates"]["learns"]["at_least"] = 0.1


@pytest.mark.parametrize("change", [no_gate, looser_gate])
def test_a_gate_on_any_arm_restates_what_that_arm_may_show_sensitive(change):
    for first, second in ((FIRST, changed(change)), (changed(change), FIRST)):
        chain = chain_of(first, second, known=[[], EVERYTHING])
        assert words(chain) == {"none_rises": "exploratory", "deep_rises": "exploratory"}


def test_a_gate_on_one_more_arm_and_one_beside_how_runs_end_restate_nothing():
    one = changed(without_another_arm)
    both = changed(lambda content: content["resolved"].update(claims={}))
    assert words(chain_of(one, both, known=[[], EVERYTHING]))["none_rises"] == "confirmatory"

    def ends(content):
        given = hypothesis("none", metric="", endpoint="collapsed")
        content["resolved"]["hypotheses"] = {"none_ends": given}
        content["resolved"]["claims"] = {}

    first, second = changed(ends), changed(ends)
    no_gate(second)
    assert words(chain_of(first, second, known=[[], EVERYTHING])) == {"none_ends": "confirmatory"}


def test_results_of_arms_that_a_hypothesis_does_not_compare_do_not_count():
    known = [key("deep", seed) for seed in SEEDS]
    chain = chain_of(FIRST, changed(turned_round), known=[[], known])
    assert words(chain) == {"none_rises": "amended", "deep_rises": "confirmatory"}


def test_results_of_the_arm_of_its_control_count():
    def controlled(content):
        content["resolved"]["hypotheses"]["none_rises"]["control"] = "deep"

    chain = chain_of(changed(controlled), known=[[key("deep", 0)]])
    assert words(chain)["none_rises"] == "exploratory"


def test_in_a_family_the_control_of_one_changes_no_p_of_the_others():
    def one_family(content):
        for one in content["resolved"]["hypotheses"].values():
            one["family"] = "both"

    def controlled(content):
        one_family(content)
        content["resolved"]["hypotheses"]["none_rises"]["control"] = "deep"

    chain = chain_of(changed(one_family), changed(controlled), known=[[], EVERYTHING])
    assert words(chain) == {"none_rises": "exploratory", "deep_rises": "confirmatory"}


def test_results_that_another_study_made_count_in_the_first_registration():
    chain = chain_of(FIRST, known=[[key("none", 0)]])
    assert words(chain) == {"none_rises": "exploratory", "deep_rises": "confirmatory"}
    assert "when a result of its arms existed" in stated(chain)["none_rises"].why


def test_a_form_that_comes_back_was_stated_when_it_came_back():
    chain = chain_of(FIRST, changed(turned_round), FIRST, known=[[], [], EVERYTHING])
    assert words(chain)["none_rises"] == "exploratory"


def test_runs_under_way_are_said():
    (first,) = chain_of({**FIRST, "under_way": [key("none", 0), key("deep", 1)]}, known=[[]])
    assert stated([first])["none_rises"].word == "confirmatory"
    assert stated([first])["none_rises"].why.endswith(
        "before any result of its arms, with 1 of their runs under way"
    )


def test_seeds_added_until_it_is_supported_are_exploratory():
    steps = [changed(with_seeds(*range(count))) for count in (6, 8, 10)]
    known = [[key(arm, seed) for arm in ARMS for seed in range(count)] for count in (0, 6, 8)]
    chain = chain_of(*steps, known=known)
    assert set(words(chain).values()) == {"exploratory"}


def test_an_arm_under_another_name_is_the_same_arm():
    def renamed(content):
        content["resolved"]["arms"]["bare"] = content["resolved"]["arms"].pop("none")
        content["resolved"]["hypotheses"]["bare_rises"] = hypothesis("bare", contrast=("bare",))
        del content["resolved"]["hypotheses"]["none_rises"], content["resolved"]["claims"]["both"]
        for trial in content["trials"]:
            trial["arm"] = trial["arm"].replace("none", "bare")
        longer(content)

    chain = chain_of(FIRST, changed(renamed), known=[[], [key("none", 0)]])
    assert words(chain)["bare_rises"] == "exploratory"


def test_leaving_a_hypothesis_out_of_a_family_changes_what_is_left_of_it():
    def without(content):
        one_family(content)
        del content["resolved"]["hypotheses"]["deep_rises"]
        content["resolved"]["claims"]["both"]["hypotheses"] = ["none_rises"]

    before, after = changed(one_family), changed(without)
    before["resolved"]["claims"] = after["resolved"]["claims"] = {}
    chain = chain_of(before, after, known=[[], EVERYTHING])
    assert words(chain) == {"none_rises": "exploratory"}


def test_in_a_family_the_direction_of_one_changes_no_p_of_the_others():
    def turned(content):
        one_family(content)
        turned_round(content)

    chain = chain_of(changed(one_family), changed(turned), known=[[], EVERYTHING])
    assert words(chain) == {"none_rises": "exploratory", "deep_rises": "confirmatory"}


def one_family(content, by="max-t"):
    content["resolved"]["multiplicity"] = {"over": "claim", "by": by}
    for one in content["resolved"]["hypotheses"].values():
        one["family"] = "primary"


def reordered(content):
    hypotheses = content["resolved"]["hypotheses"]
    content["resolved"]["hypotheses"] = dict(reversed(hypotheses.items()))


def test_another_order_is_a_change_of_a_fixed_sequence_and_of_nothing_else():
    def second(by):
        first = changed(lambda content: one_family(content, by))
        after = copy.deepcopy(first)
        reordered(after)
        return chain_of(first, after, known=[[], EVERYTHING])

    assert changes(*second("max-t")) == []
    assert set(words(second("max-t")).values()) == {"confirmatory"}
    assert changes(*second("fixed-sequence")) == [
        "hypotheses in another order: deep_rises, none_rises"
    ]
    assert set(words(second("fixed-sequence")).values()) == {"exploratory"}


def test_what_holds_has_a_family_of_its_own_and_who_leaves_one_changes_it():
    def holding(content):
        one_family(content)
        content["resolved"]["hypotheses"]["deep_rises"]["direction"] = "holds"

    def wider(content):
        holding(content)
        content["resolved"]["hypotheses"]["deep_rises"]["smallest_effect"] = 0.5

    chain = chain_of(changed(holding), changed(wider), known=[[], EVERYTHING])
    assert words(chain) == {"none_rises": "confirmatory", "deep_rises": "exploratory"}
    chain = chain_of(changed(one_family), changed(holding), known=[[], EVERYTHING])
    assert set(words(chain).values()) == {"exploratory"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c["code"].update({"trainers.training.step": "2"}), "trainers.training.step"),
        (lambda c: c["analysis"].update({"ablations.verdicts.rule": "2"}), "ablations.verdicts."),
        (lambda c: c["packages"].update(torch="2.15"), "torch 2.14 -> 2.15"),
    ],
)
def test_other_versions_alone_are_amended_and_say_how_many_results_were_known(change, line):
    def newer(content):
        change(content)
        for trial in content["trials"]:
            trial["key"] += "-newer"

    chain = chain_of(FIRST, changed(newer), known=[[], EVERYTHING])
    assert any(line in one for one in changes(*chain))
    found = stated(chain)["none_rises"]
    assert found.word == "amended"
    assert "versions changed in registration 2" in found.why
    assert "(so), when 12 results of its arms existed" in found.why


def test_what_changes_no_number_is_no_change():
    def moved(content):
        content["config"]["data"]["source"] = "b"
        content["resolved"]["resources"]["workers"] = 4
        content["packages"] |= {"ray": "2.51", "torch": "2.14+cu128"}
        content["git"] = {"commit": "f" * 40}

    before, now = chain_of(FIRST, changed(moved), known=[[], EVERYTHING])
    assert changes(before, now) == []
    assert words([before, now])["none_rises"] == "confirmatory"


def test_other_starting_weights_are_a_change():
    def other_weights(content):
        for trial in content["trials"]:
            trial["key"] += "-weights"

    chain = chain_of(FIRST, changed(other_weights), known=[[], EVERYTHING])
    assert changes(*chain) == [
        "what runs start from or read: weights at model.weights, or an arm's images"
    ]
    assert words(chain)["none_rises"] == "exploratory"


def test_a_claim_has_the_weakest_word_of_its_hypotheses():
    chain = chain_of(FIRST, changed(turned_round), known=[[], EVERYTHING])
    found = stated_claims(chain[-1], stated(chain))["both"]
    assert found.word == "exploratory"
    assert found.why.startswith("none_rises: stated in registration 2")


def test_a_lock_of_before_makes_nothing_confirmatory():
    chain = [Entry.model_validate_json(json.dumps(FIRST))]
    assert set(words(chain).values()) == {"exploratory"}


def test_hypotheses_that_were_stated_alike_share_a_line():
    (line,) = lines_of(stated(chain_of(FIRST, known=[[]])))
    assert line.startswith("confirmatory: none_rises, deep_rises (stated in registration 1")


def test_the_digest_of_an_entry_is_that_of_its_bytes_and_every_byte_counts():
    content = written({**FIRST, "number": 1})
    assert len(entry_of(content).digest) == 64
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1
        with pytest.raises(ValueError, match=r"."):
            entry_of(bytes(flipped))
