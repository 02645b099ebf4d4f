"""Which runs of a study are trained now: by arm, by seed."""

import json
import subprocess
import sys

import pytest

from orchestrator.cli.choosing import chosen_trials, chosen_workers
from orchestrator.cli.options import name_of_study
from orchestrator.plan import Trial
from tests.orchestrator.conftest import environment
from trainers.config import TrainConfig
from trainers.errors import InputError, StudyError
from trainers.system.store import open_store

ARMS, SEEDS = ("baseline", "narrow", "wide"), (0, 1, 2, 5)


def trials():
    """One a (arm, seed); `narrow` and `wide` are the same run at seed 5."""
    made = [(arm,) for arm in ARMS]
    return [
        Trial(key=f"{arms}{seed}", arms=arms, seed=seed, config=TrainConfig(), digest="")
        for seed in SEEDS
        for arms in ([("baseline",), ("narrow", "wide")] if seed == 5 else made)
    ]


def taken(only, seeds):
    takes = chosen_trials(ARMS, SEEDS, only, seeds)
    return [(one.arms, one.seed) for one in trials() if takes(one)]


def test_nothing_given_takes_all():
    assert len(taken(None, None)) == len(trials())


def test_arms_and_seeds_take_what_is_of_both():
    assert taken(["narrow"], "1..5") == [
        (("narrow",), 1), (("narrow",), 2), (("narrow", "wide"), 5),
    ]  # fmt: skip
    assert taken(["baseline", "wide"], "0, 5") == [
        (("baseline",), 0), (("wide",), 0), (("baseline",), 5), (("narrow", "wide"), 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("only", "seeds", "said"),
    [
        (["narow"], None, "no such arm; did you mean"),
        (None, "3", "has no seed 3; it has 0, 1, 2, 5"),
        (None, "0..4", "has no seed 4"),
        (None, "2..0", "2 comes behind 0"),
        (None, "", "give numbers"),
        (None, "-1", "give numbers"),
        (None, "1..", "give numbers"),
        (None, "٣", "no seed 3"),
        (None, "9999999999", "give numbers"),
    ],
)
def test_what_the_study_has_not_is_one_line(only, seeds, said):
    with pytest.raises(InputError, match=said) as caught:
        chosen_trials(ARMS, SEEDS, only, seeds)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_only_what_is_chosen_is_trained_and_a_program_can_read_how_it_ended(
    mini, cluster, tmp_path, dinolab
):
    words = ["run", mini, "--root", tmp_path, "--only", "baseline", "--seeds", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        stdout=subprocess.PIPE,
        check=False,
        env=environment(RAY_ADDRESS=cluster),
        timeout=240,
    )
    assert done.returncode == 3
    found = json.loads(done.stdout)
    ended = {(one["arm"], one["seed"]): one["status"] for one in found["runs"]}
    assert [place for place, status in ended.items() if status == "finished"] == [("baseline", 1)]
    assert {status for place, status in ended.items() if place != ("baseline", 1)} == {"missing"}
    assert found["hypotheses"]["none_is_equivalent"]["verdict"]["label"] == "failed"
    code, output, _ = dinolab("retry", mini, "--root", tmp_path)
    assert code == 3
    assert "1 of 6 runs are finished: training 0 of the other 5" in output


def test_the_name_of_a_study_is_known_without_running_its_recipe(tmp_path):
    recipe, study = tmp_path / "mine.py", tmp_path / "study.yaml"
    recipe.write_text("from pathlib import Path\nPath(__file__).with_name('it ran').touch()\n")
    study.write_text(f"name: mine\nrecipe: {recipe}\nseeds: 8\narms: []\n")
    store = open_store(str(tmp_path / "runs"), make=True)
    assert name_of_study(str(study), store) == "mine"
    assert not (tmp_path / "it ran").exists()


def test_workers_are_a_number_or_the_fewest_and_the_most():
    assert chosen_workers(None) is None
    assert chosen_workers("4") == (4, 0)
    assert chosen_workers("2..8") == (2, 8)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0", "give a number, as 2, or the fewest and the most, 2..8"),
        ("two", "give a number"),
        ("2-8", "give a number"),
        ("..8", "give a number"),
        ("8..2", "8 is more than 2"),
    ],
)
def test_what_is_no_number_of_workers_is_one_line(given, said):
    with pytest.raises(InputError, match=said) as caught:
        chosen_workers(given)
    assert str(caught.value).startswith(f"--workers {given}: ")
    assert "\n" not in str(caught.value)


def test_a_study_file_with_scales_is_one_study_for_each(tmp_path):
    study = tmp_path / "mine.yaml"
    store = open_store(tmp_path / "root", make=True)
    study.write_text("name: mine\nscales: {small: {seeds: 6}}\n")
    assert name_of_study(str(study), store) == "mine-small"
    study.write_text("name: mine\nscales: {small: {seeds: 6}, large:}\n")
    with pytest.raises(StudyError, match="several scales; give mine-small or mine-large"):
        name_of_study(str(study), store)


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--root", LONG],
        ["gc", "--root", LONG],
        ["list", "ablations", "--ablations", LONG],
        ["eval", LONG],
        ["export", LONG, "--to", "timm", "--out", "out"],
        ["list", "studies", "--root", LONG],
        ["measure", LONG, "--out", "out"],
    ],
)
def test_a_path_that_cannot_even_be_asked_for_is_one_line(
    dinolab, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = dinolab(*arguments)
    assert code == 2, err
    assert err.count("\n") == 1
    assert LONG[:60] in err
    assert not any(tmp_path.iterdir())
