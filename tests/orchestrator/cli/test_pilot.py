"""A pilot is a study of its own, and what `plan` says rests on it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ablations.study.loading import load_study
from dashboards.tables.chain import read_chain
from dashboards.tables.values import VALUES
from orchestrator.pilot import FIRST_SEED, pilot_of, read_pilot
from orchestrator.plan import make_plan
from orchestrator.registration import Statement
from tests.orchestrator.tracking.conftest import Trial
from trainers.config import override
from trainers.data.image_set import open_images
from trainers.system.store import LocalStore

STUDY = """
name: cls
recipe: digits_tiny
seeds: 8
set: {steps: 500}
arms:
  - none: {model.cls_position: none}
  - tied: {model.cls_position: tied}
hypotheses:
  none_helps:
    metric: knn/cls_top1
    contrast: [none, baseline]
    direction: rises
    smallest_effect: 0.02
  tied_helps:
    metric: knn/cls_top1
    contrast: [tied, baseline]
    direction: rises
    smallest_effect: 0.02
claims:
  both:
    text: "they help"
    hypotheses: [none_helps, tied_helps]
"""

TOP = {"baseline": [0.80, 0.80, 0.80], "none": [0.80, 0.81, 0.83], "tied": [0.81, 0.79, 0.80]}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "cls.yaml"
    path.write_text(STUDY)
    return open_images(load_study(path).base.data, path.parent / "index")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cls.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def store(path, images, tmp_path):
    """A run root that has the pilot of that study: two of its three arms, trained."""
    store = LocalStore(tmp_path / "runs", make=True)
    plan = make_plan(pilot_of(load_study(path), 3, ["none"], None), images)
    Statement(plan, images, store).register()
    for trial in plan.trials:
        top = TOP[trial.arms[0]][trial.seed - FIRST_SEED]
        ends = {0: {"knn/cls_top1": 0.3}, 500: {"knn/cls_top1": top}}
        Trial(store, trial.key, trial.seed).finish(1, ends)
    return store


def planned(dinolab, path, store, *more):
    """What `plan --json` prints, and its words."""
    code, out, err = dinolab("plan", path, "--tflops", "1", "--root", store.root, "--json", *more)
    assert code == 0, err
    return json.loads(out), err


def test_a_pilot_has_seeds_of_its_own_and_no_hypotheses(path):
    study = load_study(path)
    pilot = pilot_of(study, 3, None, None)
    assert pilot.name == "cls-pilot"
    assert pilot.seeds == (1_000_000, 1_000_001, 1_000_002)
    assert (pilot.hypotheses, pilot.claims, pilot.gates) == ({}, {}, {})
    assert list(pilot.arms) == ["baseline", "none", "tied"]
    near = replace(study, seeds=(1_000_000, 1_000_002))
    assert pilot_of(near, 2, ["tied"], None).seeds == (1_000_001, 1_000_003)


def test_a_pilot_grows_and_keeps_what_it_has(path, images, store):
    study = load_study(path)
    found = read_pilot(study, images, store)
    assert found.arms == ("baseline", "none")
    grown = pilot_of(study, 4, ["tied"], found)
    assert grown.seeds == (1_000_000, 1_000_001, 1_000_002, 1_000_003)
    assert list(grown.arms) == ["baseline", "none", "tied"]
    assert pilot_of(study, 2, ["none"], found).seeds == found.seeds


def test_where_the_images_lie_and_how_often_a_run_saves_make_no_other_pilot(path, images, store):
    study = load_study(path)
    base = override(study.base, {"checkpoint_every": study.base.checkpoint_every + 1})
    data = base.data.model_copy(update={"source": "elsewhere"})
    moved = replace(study, base=base.model_copy(update={"data": data}))
    assert read_pilot(moved, images, store) == read_pilot(study, images, store)


def test_a_plan_uses_what_the_pilot_shows_and_assumes_the_rest(dinolab, path, store):
    found, said = planned(dinolab, path, store)
    assert found["power"]["pilot"] == {
        "study": "cls-pilot", "seeds": [1_000_000, 1_000_001, 1_000_002],
        "arms": ["baseline", "none"],
    }  # fmt: skip
    none, tied = found["hypotheses"]["none_helps"], found["hypotheses"]["tied_helps"]
    observed = np.std([0.0, 0.01, 0.03], ddof=1)
    assert none["deviation"] == pytest.approx(observed * 2.117, rel=1e-3)
    assert (none["deviation_from"], tied["deviation_from"]) == ("pilot", "assumed")
    assert tied["deviation"] == pytest.approx(0.02)
    assert none["power"]["2"] < tied["power"]["2"]
    assert none["least_detectable"] > tied["least_detectable"] > 0.02
    assert tied["least_p"] == 2 / 2**8
    assert found["claims"]["both"]["power"]["2"] < none["power"]["2"] + 0.02
    assert "those of cls-pilot (seeds 1000000, 1000001, 1000002)" in said
    assert any("none_helps: smallest effect 0.02" in note for note in found["notes"])


def test_without_a_pilot_a_plan_says_what_is_assumed(dinolab, path, tmp_path):
    store = LocalStore(tmp_path / "empty", make=True)
    found, said = planned(dinolab, path, store)
    assert found["power"]["pilot"] is None
    assert found["power"]["correlation"] == [[1.0, 0.0], [0.0, 1.0]]
    assert "deviations (*) are assumed at 1 × the smallest effect" in said
    less, said = planned(dinolab, path, store, "--deviation", "0.5")
    assert less["hypotheses"]["none_helps"]["deviation"] == pytest.approx(0.01)
    assert "assumed at 0.5 × the smallest effect" in said
    for name in ("none_helps", "tied_helps"):
        before, after = (one["hypotheses"][name]["power"]["1.5"] for one in (found, less))
        assert before < after


def test_the_price_of_one_family_for_the_whole_study_is_said(dinolab, path, tmp_path):
    store = LocalStore(tmp_path / "empty", make=True)
    apart = STUDY.replace("[none_helps, tied_helps]", "[none_helps]") + (
        "  other:\n    text: it helps\n    hypotheses: [tied_helps]\n"
    )
    path.write_text(apart.replace("seeds: 8", "seeds: 6") + "multiplicity: {over: study}\n")
    found, said = planned(dinolab, path, store)
    price = found["power"]["price_of_one_family"]
    assert price["study"] < price["claim"] - 0.05
    assert f"be {100 * price['claim']:.0f} % if claims were families" in said
    path.write_text(apart.replace("seeds: 8", "seeds: 6"))
    within, _ = planned(dinolab, path, store)
    assert within["power"]["price_of_one_family"] is None
    powers = [one["power"]["1.5"] for one in within["hypotheses"].values()]
    assert np.mean(powers) == pytest.approx(price["claim"])


def test_what_was_declared_otherwise_says_nothing(dinolab, path, store):
    path.write_text(STUDY.replace("cls_position: none", "cls_position: random"))
    found, _ = planned(dinolab, path, store)
    assert found["hypotheses"]["none_helps"]["deviation_from"] == "assumed"
    assert any("pilot cls-pilot: none was trained as it is not" in note for note in found["notes"])
    path.write_text(STUDY.replace("steps: 500", "steps: 700"))
    found, _ = planned(dinolab, path, store)
    assert found["power"]["pilot"]["arms"] == []


def contents(store):
    """Every file, but for the tables that whoever reads a trial keeps of its records."""
    files = [one for one in store.root.rglob("*") if one.is_file() and one.name != VALUES]
    return {one: one.read_bytes() for one in files}


@pytest.mark.parametrize("command", [["plan"], ["run"], ["amend", "--reason", "so"]])
def test_a_study_that_has_a_seed_of_its_pilot_is_refused(dinolab, path, store, command):
    path.write_text(STUDY.replace("seeds: 8", "seeds: [0, 1, 2, 3, 4, 1000001]"))
    before = contents(store)
    code, _, err = dinolab(command[0], path, "--root", store.root, *command[1:])
    assert code == 2
    assert "seeds: 1000001 were those of the pilot cls-pilot" in err
    assert len(err.strip().splitlines()) == 1
    assert contents(store) == before


@pytest.mark.parametrize(
    ("address", "arguments", "line"),
    [
        ("127.0.0.1:1", [], "RAY_ADDRESS=127.0.0.1:1 cannot be used"),
        ("", ["--leave-cpus", "10000"], "--leave-cpus 10000"),
    ],
)
def test_a_pilot_that_no_cluster_takes_states_nothing(
    dinolab, path, store, monkeypatch, address, arguments, line
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    before = contents(store)
    code, _, err = dinolab("pilot", path, "--root", store.root, "--seeds", "4", *arguments)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert contents(store) == before


@pytest.mark.slow
def test_a_pilot_that_grows_states_it_when_nothing_stands_in_the_way(dinolab, path, images, store):
    study = load_study(path)
    plan = make_plan(pilot_of(study, 4, ["none"], read_pilot(study, images, store)), images)
    for trial in plan.missing(store):
        ends = {0: {"knn/cls_top1": 0.3}, 500: {"knn/cls_top1": 0.8}}
        Trial(store, trial.key, trial.seed).finish(1, ends)
    code, out, err = dinolab(
        "pilot", path, "--root", store.root, "--seeds", "4", "--only", "none", "--quiet"
    )
    assert (code, err) == (0, "")
    assert "nothing to train" in out
    chain = read_chain(store, "cls-pilot")
    assert [entry.reason for entry in chain] == [None, "what was asked of the pilot has changed"]
    assert chain[-1].resolved.seeds == (1_000_000, 1_000_001, 1_000_002, 1_000_003)


def test_an_arm_that_is_not_there_cannot_be_piloted(dinolab, path, tmp_path):
    code, _, err = dinolab("pilot", path, "--only", "nine", "--root", tmp_path / "none")
    assert code == 2
    assert err.startswith("--only nine: the study has no such arm; did you mean none?")
    assert not (tmp_path / "none").exists()


def test_a_plan_of_a_sequential_design_says_what_looks_save(dinolab, path, tmp_path):
    store = LocalStore(tmp_path / "empty", make=True)
    fixed, _ = planned(dinolab, path, store)
    assert fixed["power"]["looks"] is fixed["power"]["saved"] is None
    assert fixed["hypotheses"]["none_helps"]["seeds"] is None
    looks = "looks: [6, 8, 10]\nspending: pocock\nfutility: equivalence\n"
    path.write_text(STUDY.replace("seeds: 8", "seeds: 10") + looks)
    found, said = planned(dinolab, path, store)
    assert found["power"]["looks"]["looks"] == [6, 8, 10]
    none = found["hypotheses"]["none_helps"]
    # Signs of 6 seeds show 1 / 32 at the least, and Holm doubles that.
    assert list(none["least_p_at_looks"]) == ["6", "8", "10"]
    assert none["least_p_at_looks"]["10"] == none["least_p"] < 0.01
    assert none["least_p_at_looks"]["6"] > 2 * 2 / 2**6
    assert 6 < none["seeds"]["2"] < none["seeds"]["1"] < 10
    assert none["power"]["2"] > none["power"]["1.5"] > none["power"]["1"]
    # The baseline runs until both are decided.
    saved = found["power"]["saved"]["2"]
    assert 0 < saved <= 1 - none["seeds"]["2"] / 10 + 0.02
    assert "followed from look to look" in said
    assert "of all runs are not needed" in " ".join(said.split())


def test_a_pilot_of_a_sequential_design_looks_at_nothing(path):
    path.write_text(STUDY + "looks: [6, 8]\nspending: obf\n")
    assert load_study(path).design is not None
    assert pilot_of(load_study(path), 3, None, None).design is None


def test_a_study_that_asks_nothing_has_a_plan_whatever_its_families(dinolab, path, tmp_path):
    store = LocalStore(tmp_path / "empty", make=True)
    path.write_text(STUDY[: STUDY.index("hypotheses:")] + "multiplicity: {over: study}\n")
    found, _ = planned(dinolab, path, store)
    assert found["power"]["price_of_one_family"] is None


@pytest.mark.parametrize("given", ["inf", "nan", "0", "1e9"])
def test_a_deviation_that_is_none_is_refused(dinolab, path, given):
    code, _, err = dinolab("plan", path, "--tflops", "1", "--deviation", given)
    assert code == 2
    assert "--deviation" in err
