"""A study is registered once; whoever states something else is refused, or amends the chain."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations.changes import changes
from ablations.registration import STUDIES
from ablations.spec import Gate
from ablations.stated import stated
from ablations.study.loading import load_study
from dashboards.tables.chain import read_chain
from orchestrator import registration
from orchestrator.plan import make_plan
from orchestrator.registration import Statement, found_in, said
from orchestrator.witness import VARIABLE, witness, words_of
from tests.registered import restated
from trainers.data.image_set import open_images
from trainers.errors import InputError, RootError
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.version import code_versions
from trainers.system.store import open_store

STUDY = """
name: small
recipe: digits_tiny
seeds: 3
set: {steps: 4, evaluation.every: 4}
arms:
  - cls_position_none
  - same_as_none: {model.cls_position: none}
hypotheses:
  none:
    metric: globality/contrast/gyration
    contrast: [cls_position_none, baseline]
    direction: holds
    smallest_effect: 0.05
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(STUDY)
    return load_study(path)


@pytest.fixture(scope="module")
def images(study):
    return open_images(study.base.data, Path("unused"))


@pytest.fixture(scope="module")
def plan(study, images):
    return make_plan(study, images)


@pytest.fixture(scope="module")
def longer(study, images):
    """The plan of the same study with more seeds."""
    return make_plan(replace(study, seeds=(*study.seeds, 9)), images)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "root", make=True)


@pytest.fixture
def state(images, store):
    """States a plan in the root."""

    def stated_as(plan):
        return Statement(plan, images, store)

    return stated_as


def entry_path(store, number):
    return store.root / STUDIES / "small" / "registrations" / f"{number:04d}.json"


def finish(store, plan):
    for trial in plan.trials:
        store.put(StoredTrial(store, trial.key).result_key, b"{}")


def test_the_first_registration_holds_what_is_stated(plan, images, store, state):
    entry = state(plan).register()
    content = json.loads(entry_path(store, 1).read_text())
    assert (entry.number, entry.parent, entry.reason) == (1, None, None)
    assert content["resolved"]["hypotheses"]["none"]["smallest_effect"] == 0.05
    assert len(content["trials"]) == 3 * 3
    kept = content["arms"]["cls_position_none"]
    assert kept["tokens"] == 17
    assert kept["crops_per_step"] == 3 * 32
    assert kept["losses"] == {"cls": 1.0}
    assert kept["gigaflops_per_step"] > kept["gigaflops_per_image"] * 32
    assert "one random vector" in kept["confounds"][0]
    assert content["dataset"]["digest"] == images.digest
    assert content["packages"]["torch"] == torch.__version__.split("+")[0]
    assert content["code"] == code_versions()
    assert "ablations.verdicts.rule" in content["analysis"]
    assert "ablations.statistics.sign_flip" in content["analysis"]
    assert (content["known"], content["root_results"]) == ({}, 0)


def test_it_holds_what_its_gates_compare_with_which_is_measured_once(study, images, state):
    gate = Gate(arms=("baseline",), metric="knn/cls_top1", at_least=0, at_least_over="mean_colour")
    gated = make_plan(replace(study, gates={"learns": gate}), images)
    held = state(gated).register().dataset["references"]
    # Of grey digits how bright they are, which says little more than one in ten.
    assert held == {"mean_colour": pytest.approx(0.13, abs=0.02)}
    again = state(gated)
    again.register()
    assert "_references" not in vars(again)


def test_a_study_that_is_the_same_is_registered_once(plan, store, state):
    first = state(plan).register()
    assert state(plan).register() == first
    assert [path.name for path in sorted(entry_path(store, 1).parent.glob("*.json"))] == [
        "0001.json"
    ]


def test_of_two_drivers_that_register_at_once_one_decides_and_the_other_reads_it(plan, state):
    one, other = state(plan), state(plan)
    first = one.register()
    assert other.register().digest == first.digest


def test_of_two_drivers_with_other_seeds_the_second_is_refused(plan, longer, store, state):
    one, other = state(plan), state(longer)
    one.register()
    with pytest.raises(RootError, match="seeds 0, 1, 2 -> 0, 1, 2, 9"):
        other.register()
    assert len(read_chain(store, "small")) == 1


def test_what_differs_is_refused_in_one_line_and_nothing_is_written(plan, longer, store, state):
    state(plan).register()
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    with pytest.raises(RootError) as raised:
        state(longer).register()
    line = str(raised.value)
    assert "small is registered otherwise (registration 1): seeds 0, 1, 2 -> 0, 1, 2, 9" in line
    assert line.endswith('dinolab amend STUDY --reason "…"')
    assert "\n" not in line
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


def test_other_data_are_refused(study, plan, images, store, state):
    state(plan).register()
    restated(entry_path(store, 1), lambda content: content["dataset"].update(digest="0" * 64))
    with pytest.raises(RootError, match="data: sha256 000000000000 -> "):
        state(plan).register()


def test_an_amendment_names_the_one_before_and_what_was_known(plan, longer, store, state):
    first = state(plan).register()
    finish(store, plan)
    second = state(longer).amend("  three seeds are\nnot enough ")
    assert (second.number, second.parent) == (2, first.digest)
    assert second.reason == "three seeds are not enough"
    assert set(second.known) == {trial.key for trial in plan.trials}
    assert second.root_results == len(plan.trials)
    chain = read_chain(store, "small")
    assert changes(*chain) == ["seeds 0, 1, 2 -> 0, 1, 2, 9"]
    assert stated(chain)["none"].word == "exploratory"
    assert state(longer).register() == second


def test_without_results_an_amended_study_is_amended(plan, longer, store, state):
    state(plan).register()
    state(longer).amend("more power")
    assert stated(read_chain(store, "small"))["none"].word == "amended"


def test_results_that_were_set_aside_as_damaged_were_known(plan, store):
    finish(store, plan)
    key = plan.trials[0].key
    StoredTrial(store, key).set_aside()
    found = found_in(store, [key])
    assert set(found["known"]) == {key}
    assert found["root_results"] == len(plan.trials)


def test_a_run_that_recorded_something_without_a_result_is_under_way(plan, longer, store, state):
    state(plan).register()
    first, second = plan.trials[0].key, plan.trials[1].key
    store.put(f"trials/{first}/attempts/0001/metrics-000000000.jsonl", b"")
    store.put(f"trials/{second}/attempts/0001/lease.json", b"{}")
    assert state(longer).amend("so").under_way == (first,)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_an_empty_reason_is_refused(reason):
    with pytest.raises(InputError, match="--reason is empty"):
        said(reason)


def test_there_is_nothing_to_amend_without_a_registration_or_a_change(plan, store, state):
    with pytest.raises(InputError, match="has no registration"):
        state(plan).amend("so")
    state(plan).register()
    with pytest.raises(InputError, match="nothing has changed since registration 1"):
        state(plan).amend("so")
    assert len(read_chain(store, "small")) == 1


def test_of_two_that_amend_at_once_the_second_amends_what_the_first_has_left(
    study, images, plan, longer, store, state
):
    state(plan).register()
    longest = make_plan(replace(study, seeds=(*study.seeds, 9, 10)), images)
    one, other = state(longer), state(longest)
    second = one.amend("more")
    third = other.amend("more still")
    assert (third.number, third.parent) == (3, second.digest)
    with pytest.raises(InputError, match="nothing has changed"):
        state(longest).amend("again")


def test_of_two_that_amend_the_same_at_once_the_second_goes_on_with_what_the_first_wrote(
    plan, longer, store, state
):
    state(plan).register()
    one, other = state(longer), state(longer)
    first = one.amend("more")
    assert other.amend(" more\n") == first
    assert [entry.number for entry in read_chain(store, "small")] == [1, 2]


def test_a_reason_that_comes_second_for_the_same_is_not_dropped_in_silence(
    plan, longer, store, state
):
    state(plan).register()
    one, other = state(longer), state(longer)
    one.amend("more power")
    with pytest.raises(InputError) as caught:
        other.amend("wider\nintervals")
    line = str(caught.value)
    assert "\n" not in line
    assert 'registration 2 states the same, for the reason "more power"' in line
    assert 'yours, "wider intervals", is in no registration' in line
    assert [entry.reason for entry in read_chain(store, "small")] == [None, "more power"]


class TestAChainThatIsDamaged:
    @pytest.fixture
    def three(self, study, images, plan, longer, store, state):
        """A chain of three registrations."""
        state(plan).register()
        state(longer).amend("more")
        state(plan).amend("no more")
        return store

    def refused(self, store):
        with pytest.raises(InputError) as raised:
            read_chain(store, "small")
        assert "\n" not in str(raised.value)
        return str(raised.value)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_by_a_flipped_byte_is_one_line_that_names_the_file(self, three, number):
        path = entry_path(three, number)
        content = bytearray(path.read_bytes())
        content[content.index(b"small")] ^= 1
        path.write_bytes(content)
        assert self.refused(three).startswith(f"{path} is damaged: its digest is another")

    @pytest.mark.parametrize("number", [1, 2])
    def test_by_a_missing_registration_names_it(self, three, number):
        path = entry_path(three, number)
        path.unlink()
        assert self.refused(three).startswith(f"{path} is missing")

    def test_by_one_that_was_written_anew_names_the_one_that_does_not_follow(self, three):
        restated(entry_path(three, 2), lambda content: content.update(reason="better"))
        line = self.refused(three)
        assert line.startswith(f"{entry_path(three, 3)} is damaged: it is registration 3")

    def test_by_one_of_another_study_names_it(self, three):
        restated(entry_path(three, 1), lambda content: content.update(study="other"))
        assert f"{entry_path(three, 1)} states the study other" in self.refused(three)


def test_a_lock_of_before_is_no_registration_and_says_what_to_do(plan, store, state):
    state(plan).register()
    content = json.loads(entry_path(store, 1).read_text())
    entry_path(store, 1).unlink()
    for field in ("number", "parent", "reason", "known", "root_results", "analysis", "sha256"):
        del content[field]
    store.put("studies/small/study.lock.json", json.dumps(content).encode())
    with pytest.raises(RootError, match=r"study\.lock\.json of an earlier version") as raised:
        state(plan).register()
    assert "move that file away, and the next run registers the study" in str(raised.value)
    assert [entry.number for entry in read_chain(store, "small")] == [0]
    store.delete("studies/small/study.lock.json")
    assert state(plan).register().number == 1


def test_what_was_not_committed_lies_beside_the_registration(monkeypatch, plan, store, images):
    def git(*words):
        subprocess.run(["git", "-C", store.root, *words], check=True, capture_output=True)

    git("init")
    code = store.root / "registration.py"
    code.write_text("one\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "one")
    code.write_text("two\n")
    monkeypatch.setattr(registration, "__file__", str(code))
    entry = Statement(plan, images, store).register()
    diff = entry_path(store, 1).with_suffix(".diff").read_bytes()
    assert b"-one\n+two\n" in diff
    assert entry.git["dirty"] is True
    assert entry.git["diff_sha256"] == registration.hashlib.sha256(diff).hexdigest()


class TestAWitness:
    @pytest.fixture
    def entry(self, plan, state):
        return state(plan).register()

    def test_gets_the_digest_twice_and_what_it_prints_is_kept(self, entry, store, tmp_path):
        script = tmp_path / "a witness"
        script.write_text(f'#!/bin/sh\necho "$1 $2 ${VARIABLE}"\n')
        script.chmod(0o755)
        place = witness(entry, store, f"'{script}' seen")
        assert Path(place).read_text() == f"seen {entry.digest} {entry.digest}\n"
        assert Path(place) == entry_path(store, 1).with_suffix(".witness")

    def test_is_asked_once_for_a_registration(self, entry, store):
        first = Path(witness(entry, store, "echo first"))
        witness(entry, store, "echo second")
        assert first.read_text() == f"first {entry.digest}\n"
        assert len(read_chain(store, "small")) == 1

    @pytest.mark.parametrize(
        ("command", "why"),
        [("false", "it ended with code 1"), ("no-such-witness", "No such file or directory"),
         ("sh -c 'echo no network >&2; exit 3'", "it ended with code 3 (no network)")],
    )  # fmt: skip
    def test_that_fails_is_one_line_and_nothing_of_it_is_kept(self, entry, store, command, why):
        with pytest.raises(InputError) as raised:
            witness(entry, store, command)
        line = str(raised.value)
        assert why in line
        assert "nothing was trained" in line
        assert "\n" not in line
        assert not entry_path(store, 1).with_suffix(".witness").exists()

    @pytest.mark.parametrize("command", ["sh -c 'exec sleep 60'", "sh -c 'sleep 5; echo seen'"])
    def test_that_hangs_is_ended_and_has_failed(self, entry, store, monkeypatch, command):
        monkeypatch.setattr("orchestrator.witness.ANSWER_WITHIN_S", 0.1)
        with pytest.raises(InputError, match=r"it has not ended within 0\.1 s") as raised:
            witness(entry, store, command)
        assert f"Registration 1 of study small stands (sha256 {entry.digest})" in str(raised.value)
        assert "\n" not in str(raised.value)
        assert not entry_path(store, 1).with_suffix(".witness").exists()

    @pytest.mark.parametrize("command", ["", "  ", "echo 'open"])
    def test_that_is_no_command_is_one_line(self, command):
        with pytest.raises(InputError, match=r"^--witness"):
            words_of(command)
