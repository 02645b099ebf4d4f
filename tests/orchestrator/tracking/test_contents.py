"""What the runs of a study and of its arms hold in MLflow, and that a kill leaves it whole."""

import math

import pytest
from mlflow.utils.validation import _validate_metric_name

from dashboards.tables.derived import judged
from orchestrator.tracking import contents, runs
from orchestrator.tracking.contents import LONGEST_TAG, allowed_name, arm_numbers, study_numbers
from orchestrator.tracking.mirror import Mirror
from tests.orchestrator.tracking.conftest import MISSING, Trial, curve, ended, held, study_of
from trainers.system.store import LocalStore

pytestmark = pytest.mark.filterwarnings("ignore")

SEEDS = range(7)
NOTE = "mlflow.note.content"
HOSTILE = ("<script>alert(1)</script>", "a\nb\r\0", "x" * 300, "../../..", "..", ".", "/etc/x", " ")
RISES = {
    "metric": "knn/cls_top1", "contrast": ["a", "baseline"], "direction": "rises",
    "smallest_effect": 0.1,
}  # fmt: skip


def a_study(store, *, shift=0.0, missing=(), hypotheses=None, claims=None):
    """Arm a, which changes two knobs, is 0.3 + shift above the baseline, and varies."""
    found = {}
    for seed in SEEDS:
        found["baseline", seed] = ended(0.5 + seed / 100)
        found["a", seed] = ended(0.8 + shift + seed / 50)
    found |= dict.fromkeys(missing, MISSING)
    return study_of(
        found,
        store,
        {"it rises": RISES, "alone": {**RISES, "contrast": ["a"]}} if hypotheses is None
        else hypotheses,
        changes={"a": {"model.depth": 2, "loss.patch_weight": 0.5}},
        claims=claims,
    )  # fmt: skip


def finish(store, study):
    mirror = Mirror("mini", store, print)
    mirror.finish(study, judged(study))
    return mirror


def last(run):
    """Each metric's one value."""
    values = {}
    for name, found in run["metrics"].items():
        ((_, values[name]),) = found
    return values


def test_the_run_of_a_study_has_its_verdicts_as_metrics(store, client):
    study = a_study(store)
    finish(store, study)
    values = last(held(client)["mini"])
    verdict = judged(study)["hypotheses"]["it rises"]["verdict"]
    counts = {k.removeprefix("verdicts/"): v for k, v in values.items() if k.startswith("verdicts")}
    assert counts.pop("supported") == 2
    assert set(counts.values()) == {0}
    assert values["verdict/it rises/effect"] == verdict["mean"] == pytest.approx(0.33)
    ends = [values["verdict/it rises/low"], values["verdict/it rises/high"]]
    assert ends == verdict["interval"]
    assert values["verdict/it rises/p"] == verdict["p_adjusted"]


def test_equivalence_has_the_interval_and_the_p_that_decide_it(store):
    study = a_study(store, hypotheses={"same": {**RISES, "direction": "holds"}})
    verdict = judged(study)["hypotheses"]["same"]["verdict"]
    assert verdict["label"] == "refuted"
    numbers = study_numbers(judged(study))
    assert numbers["verdict/same/p"] == verdict["p_equivalence"]
    assert numbers["verdict/same/low"] == verdict["interval"][0]


def test_a_failed_hypothesis_has_no_p(store):
    numbers = study_numbers(judged(a_study(store, missing=[("a", 3)])))
    assert numbers["verdicts/failed"] == 2
    assert "verdict/it rises/effect" in numbers
    assert "verdict/it rises/p" not in numbers


def test_an_interval_without_an_end_is_no_metric(store):
    verdicts = judged(a_study(store))
    verdicts["hypotheses"]["it rises"]["verdict"]["interval"] = [-math.inf, math.inf]
    numbers = study_numbers(verdicts)
    assert "verdict/it rises/effect" in numbers
    assert all(map(math.isfinite, numbers.values()))


def test_an_arm_has_what_it_changes_as_parameters_and_the_baseline_nothing_else(store, client):
    finish(store, a_study(store))
    found = held(client)
    changed = {"arm": "a", "model.depth": "2", "loss.patch_weight": "0.5"}
    assert found["a"]["parameters"] == changed
    assert found["baseline"]["parameters"] == {"arm": "baseline"}
    assert found["mini"]["parameters"] == {}


def test_an_arm_has_the_difference_from_its_baseline_that_its_verdict_has(store, client):
    study = a_study(store)
    finish(store, study)
    found = held(client)
    values, verdict = last(found["a"]), judged(study)["hypotheses"]["it rises"]["verdict"]
    assert values["knn/cls_top1/difference"] == verdict["mean"]
    ends = [values[f"knn/cls_top1/difference_{end}"] for end in ("low", "high")]
    assert ends == verdict["interval"]
    assert values["knn/cls_top1/low"] < values["knn/cls_top1/mean"] < values["knn/cls_top1/high"]
    assert not any("difference" in name for name in found["baseline"]["metrics"])


def test_a_seed_without_its_pair_is_in_the_mean_and_in_no_difference(store):
    values = arm_numbers(a_study(store, missing=[("baseline", 0)]), "a")
    assert values["knn/cls_top1/mean"] == pytest.approx(0.86)
    assert values["knn/cls_top1/difference"] == pytest.approx(0.335)


def test_end_points_are_endings_layers_and_changes_since_the_start_too(store):
    ending = {"contrast": ["a", "baseline"], "direction": "differs", "smallest_effect": 0.1}
    study = a_study(
        store,
        hypotheses={
            "ends": {**ending, "endpoint": "collapsed"},
            "layer": {**RISES, "metric": "a@layer1"},
            "since": {**RISES, "minus_start": True},
        },
    )
    study.runs["a", 0] = type(ended(0.0))(status="collapsed", start={}, end={})
    values = arm_numbers(study, "a")
    assert values["ended/collapsed/difference"] == pytest.approx(1 / 7)
    assert values["a at layer1/mean"] == 2
    # There is no step 0 here.
    assert not any(name.startswith("knn/cls_top1/since_start") for name in values)


def test_the_descriptions_say_claims_questions_and_verdicts(store, client):
    claims = {"one": {"text": "It *rises* <b>", "hypotheses": ["it rises"]}}
    finish(store, a_study(store, claims=claims))
    experiment = client.get_experiment_by_name("mini").experiment_id
    found = {r.info.run_name: r.data.tags for r in client.search_runs([experiment])}
    assert "**supported**, confirmatory: It \\*rises\\* &lt;b&gt;" in found["mini"][NOTE]
    assert "`model.depth` = `2`" in found["a"][NOTE]
    assert "a − baseline, knn/cls\\_top1: does it rise by 0.1 or more?" in found["a"][NOTE]
    assert found["a"]["dinolab.verdicts"] == "supported: it rises, alone"


def test_a_description_that_is_too_long_ends_with_a_whole_line(store):
    many = {f"h{i}": {**RISES, "claim": "why " * 50} for i in range(40)}
    study = a_study(store, hypotheses=many)
    note = contents.arm_note(study, judged(study), "a")
    assert len(note) <= LONGEST_TAG
    assert note.splitlines()[-1].startswith("- and ")


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_becomes_one_that_mlflow_takes_and_no_other_has(name):
    others = {allowed_name(one) for one in (*HOSTILE, "a_b__", "__", "plain", "_._..")}
    assert len(others) == len(HOSTILE) + 4
    _validate_metric_name(f"verdict/{allowed_name(name)}/effect")
    assert allowed_name("cls_position: none") != allowed_name("cls_position_ none")


def test_runs_are_made_anew_when_verdicts_or_changes_do_and_only_then(store, client):
    Trial(store, "key").finish(1, curve(3))
    mirror = Mirror("mini", store, print)
    mirror.sync("key", ["a"], 0)
    study, other = a_study(store), a_study(store, shift=-0.25)
    first = finish(store, study).runs.runs
    before = held(client)
    assert {n: r.run_id for n, r in finish(store, study).runs.runs.items()} == {
        n: r.run_id for n, r in first.items()
    }
    assert held(client) == before
    now = finish(store, other).runs.runs
    assert held(client) != before
    assert {name for name in now if now[name].run_id == first[name].run_id} == {
        ("baseline", ""),
        ("a", "key"),
    }
    finish(store, study)
    assert held(client) == before


@pytest.mark.parametrize("is_done", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_of_the_end_leaves_what_the_next_driver_makes_equal(
    store, client, monkeypatch, killed_at_write, is_done
):
    monkeypatch.setattr(runs, "METRICS_A_BATCH", 5)
    Trial(store, "key").finish(1, curve(2))
    studies = [a_study(store, missing=[("a", 3)]), a_study(store)]
    contents_of = [judged(study) for study in studies]

    def end(number):
        mirror = Mirror("mini", store, print)
        mirror.sync("key", ["a"], 0)
        mirror.finish(studies[number], contents_of[number])

    end(1)
    expected = held(client)
    kill_at, is_killed = 0, True
    while is_killed:
        kill_at += 1
        end(0)
        is_killed = killed_at_write(lambda: end(1), kill_at, is_done)
        end(1)
        assert held(client) == expected
    assert kill_at > 9


def test_hostile_names_leave_no_file_outside_the_root(store, client, tmp_path):
    arm = "../../<b>\n" + "x" * 300
    found = {("baseline", 0): ended(0.5), (arm, 0): ended(0.7)}
    hypotheses = {"../..\n" + "y" * 300: {**RISES, "contrast": [arm, "baseline"]}}
    study = study_of(found, store, hypotheses, changes={arm: {"model.depth": 2}})
    store.put("studies/mini/report.html", b"<h1>here</h1>")
    before = {path.name for path in tmp_path.iterdir()}
    finish(store, study)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert {path.name for path in LocalStore(store.root).root.iterdir()} <= {
        "mlflow.db", "mlflow-artifacts", "root.json", "studies", "trials",
    }  # fmt: skip
    assert len(held(client)) == 3
