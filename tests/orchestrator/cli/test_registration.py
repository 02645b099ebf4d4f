"""The text of a study that has results is changed: refused, or exploratory on every surface."""

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest

from ablations.registration import STUDIES
from ablations.study.loading import load_study
from dashboards.figures.forest import verdict_intervals
from dashboards.figures.seeds import paired_seeds
from dashboards.tables.chain import read_chain
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from dashboards.verification.study import verify_study
from orchestrator.plan import make_plan
from orchestrator.registration import Statement
from tests.orchestrator.tracking.conftest import Trial
from trainers.data.image_set import open_images
from trainers.system.store import LocalStore

STUDY = """
name: cls
recipe: digits_tiny
seeds: [0, 1, 2, 3, 4, 5]
set: {steps: 500}
arms:
  - none: {model.cls_position: none}
hypotheses:
  none_helps:
    metric: knn/cls_top1
    contrast: [none, baseline]
    direction: rises
    smallest_effect: 0.02
claims:
  needless:
    text: "[CLS] needs no position"
    hypotheses: [none_helps]
"""

CHANGES = {
    "seeds": ("[0, 1, 2, 3, 4, 5]", "[0, 2, 3, 5, 7]"),
    "seeds added": ("[0, 1, 2, 3, 4, 5]", "8"),
    "steps": ("{steps: 500}", "{steps: 700}"),
    "arm": ("model.cls_position: none", "model.cls_position: random"),
    "recipe": ("digits_tiny", "photographs_tiny"),
    "direction": ("rises", "falls"),
    "smallest effect": ("0.02", "0.005"),
    "alpha": ("smallest_effect: 0.02", "smallest_effect: 0.02\n    alpha: 0.2"),
    "claim": ("needs no position", "needs a position"),
}
SAID = {
    "seeds": "seeds 0, 1, 2, 3, 4, 5 -> 0, 2, 3, 5, 7",
    "seeds added": "seeds 0, 1, 2, 3, 4, 5 -> 0, 1, 2, 3, 4, 5, 6, 7",
    "steps": "steps 500 -> 700",
    "arm": "arm none: model.cls_position none -> random",
    "recipe": "recipe digits_tiny -> photographs_tiny",
    "direction": "hypothesis none_helps: direction rises -> falls",
    "smallest effect": "hypothesis none_helps: smallest_effect 0.02 -> 0.005",
    "alpha": "hypothesis none_helps: alpha 0.05 -> 0.2",
    "claim": "claim needless: text [CLS] needs no position -> [CLS] needs a position",
}


def planned(path, tmp_path):
    study = load_study(path)
    images = open_images(study.base.data, tmp_path / "index")
    return make_plan(study, images), images


def finish(store, plan, entry):
    """Write the results of a plan, as of a study's newest registration.

    Without a position [CLS] is worse at every seed.
    """
    for trial in plan.trials:
        top = 0.8 + 0.001 * trial.seed - (0.1 if "none" in trial.arms else 0)
        ends = {0: {"knn/cls_top1": 0.3}, 500: {"knn/cls_top1": top}}
        Trial(store, trial.key, trial.seed).finish(1, ends, registrations=[entry.digest])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run root whose study was registered before its six pairs were trained; and its file."""
    folder = tmp_path_factory.mktemp("made")
    path, store = folder / "cls.yaml", LocalStore(folder / "runs", make=True)
    path.write_text(STUDY)
    plan, images = planned(path, folder)
    finish(store, plan, Statement(plan, images, store).register())
    return store.root, path


@pytest.fixture
def root(made, tmp_path):
    """A copy of that root."""
    return shutil.copytree(made[0], tmp_path / "runs")


@pytest.fixture
def changed(tmp_path):
    """Writes the study with parts of its text replaced."""

    def write(*replaced):
        text = STUDY
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return path

    return write


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def verdicts(root, name="cls"):
    return judged(read_study(LocalStore(root), name))


def test_as_it_was_stated_it_is_refuted_and_confirmatory(made):
    found = verdicts(made[0])
    (entry,) = found["hypotheses"].values()
    assert (entry["verdict"]["label"], entry["stated"]["word"]) == ("refuted", "confirmatory")
    assert found["claims"]["needless"]["stated"]["word"] == "confirmatory"
    assert found["registration"]["number"] == 1


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(one, marks=[] if one in ("seeds", "direction") else pytest.mark.slow)
        for one in CHANGES
    ],
)
def test_a_change_is_refused_and_amended_it_is_exploratory(dinolab, root, changed, what):
    before, path = contents(root), changed(CHANGES[what])
    code, _, err = dinolab("run", path, "--root", root)
    assert code == 2
    assert f"(registration 1): {SAID[what]}" in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before

    code, out, err = dinolab("amend", path, "--root", root, "--reason", "it looked better")
    assert (code, err) == (0, "")
    assert SAID[what] in out
    assert "registration 2 of study cls: sha256 " in out
    assert "exploratory: none_helps (stated in registration 2 of " in out
    found = verdicts(root)
    assert found["hypotheses"]["none_helps"]["stated"]["word"] == "exploratory"
    assert found["claims"]["needless"]["stated"]["word"] == "exploratory"


def test_turned_round_it_is_exploratory_on_every_surface(dinolab, root, changed):
    path = changed(CHANGES["direction"])
    assert dinolab("amend", path, "--root", root, "--reason", "so it was meant")[0] == 0
    code, out, _ = dinolab("report", "cls", "--root", root)
    assert code == 0
    assert any("SUPPORTED" in line and "exploratory" in line for line in out.splitlines())
    assert "exploratory: none_helps (stated in registration 2 of " in out
    folder = root / STUDIES / "cls"
    written = json.loads((folder / "verdicts.json").read_text())
    entry = written["hypotheses"]["none_helps"]
    assert (entry["verdict"]["label"], entry["stated"]["word"]) == ("supported", "exploratory")
    assert written["registration"]["number"] == 2
    metadata = pq.read_schema(folder / "results.parquet").metadata
    assert json.loads(metadata[b"dinolab.stated"]) == {"none_helps": "exploratory"}
    report = re.sub("<[^>]*>", "", (folder / "report.html").read_text())
    for part in (
        "When they were stated: 1 exploratory.",
        "hypothesis none_helps: direction rises -&gt; falls",
        "so it was meant",
        "exploratory: none_helps. Stated in registration 2 of ",
    ):
        assert part in report
    assert "confirmatory" not in report[: report.index("What labels and words mean")]
    study = read_study(LocalStore(root), "cls")
    for figure in (verdict_intervals(written), paired_seeds(study, written)):
        assert "exploratory" in figure.to_json()
    code, out, _ = dinolab("status", "cls", "--root", root)
    assert "registration 2: sha256 " in out
    assert "exploratory: none_helps" in out


def test_turned_round_under_another_name_it_is_exploratory(root, changed, tmp_path):
    path = changed(("name: cls", "name: again"), CHANGES["direction"])
    plan, images = planned(path, tmp_path)
    Statement(plan, images, LocalStore(root)).register()
    entry = verdicts(root, "again")["hypotheses"]["none_helps"]
    assert (entry["verdict"]["label"], entry["stated"]["word"]) == ("supported", "exploratory")


def test_trained_otherwise_under_another_name_it_is_said_what_other_studies_had(
    root, changed, tmp_path
):
    path = changed(("name: cls", "name: again"), CHANGES["direction"], CHANGES["steps"])
    plan, images = planned(path, tmp_path)
    entry = Statement(plan, images, LocalStore(root)).register()
    assert (entry.known, len(entry.elsewhere)) == ({}, 12)
    why = verdicts(root, "again")["hypotheses"]["none_helps"]["stated"]["why"]
    assert why.endswith("other studies had 12 results of such arms at these seeds")


def test_seeds_added_under_another_name_are_exploratory(root, changed, tmp_path):
    path = changed(("name: cls", "name: again"), CHANGES["seeds added"])
    plan, images = planned(path, tmp_path)
    store = LocalStore(root)
    finish(store, plan, Statement(plan, images, store).register())
    entry = verdicts(root, "again")["hypotheses"]["none_helps"]
    assert entry["stated"]["word"] == "exploratory"
    assert "when 12 results of its arms existed" in entry["stated"]["why"]


def test_a_claim_that_is_left_out_knowing_results_is_a_deviation(dinolab, root, changed):
    path = changed((STUDY[STUDY.index("claims:") :], ""))
    assert dinolab("amend", path, "--root", root, "--reason", "it failed")[0] == 0
    found = verify_study(LocalStore(root), "cls", {}).findings
    (left,) = [one.what for one in found if one.kind == "deviated"]
    assert left == "claim needless was left out, knowing 12 results"


def test_optional_stopping_by_hand_is_exploratory(dinolab, root, changed, tmp_path):
    for seeds in (8, 10):
        path = changed(("[0, 1, 2, 3, 4, 5]", str(seeds)))
        assert dinolab("amend", path, "--root", root, "--reason", "almost")[0] == 0
        plan, _ = planned(path, tmp_path)
        finish(LocalStore(root), plan, read_chain(LocalStore(root), "cls")[-1])
    entry = verdicts(root)["hypotheses"]["none_helps"]
    assert entry["stated"]["word"] == "exploratory"
    assert "registration 3" in entry["stated"]["why"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--reason", "  "], "--reason is empty"),
        (["--reason", "so"], "nothing has changed since registration 1 of study cls"),
        (["--reason", "so", "--witness", " "], "--witness is empty"),
        (["--reason", "so", "--witness", "no-such -m"], "there is no command no-such that"),
        ([], "--reason"),
    ],
)
def test_what_cannot_be_amended_is_one_line_and_nothing_is_written(
    dinolab, made, root, arguments, line
):
    before = contents(root)
    code, _, err = dinolab("amend", made[1], "--root", root, *arguments)
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_a_run_that_no_cluster_takes_sets_no_damaged_result_aside(dinolab, made, root, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    next(root.glob("trials/*/result.json")).write_text("{")
    before = contents(root)
    code, _, err = dinolab("run", made[1], "--root", root, "--leave-cpus", "10000")
    assert code == 2
    assert "--leave-cpus 10000" in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_a_mirror_that_cannot_be_made_keeps_no_tables_either(dinolab, root, monkeypatch, tmp_path):
    (tmp_path / "none.db").write_text("no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    before = contents(root)
    code, _, err = dinolab("mirror", "cls", "--root", root)
    assert code == 2
    assert "none.db" in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_garbage_of_a_root_with_a_damaged_registration_is_not_deleted(dinolab, root):
    (root / "trials" / "of-no-study").mkdir()
    (root / "trials" / "of-no-study" / "config.json").write_text("{}")
    (root / STUDIES / "cls" / "registrations" / "0001.json").write_text("{")
    before = contents(root)
    code, _, err = dinolab("gc", "--root", root, "--delete")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_without_a_registration_there_is_nothing_to_amend(dinolab, made, tmp_path):
    LocalStore(tmp_path / "runs", make=True)
    code, _, err = dinolab("amend", made[1], "--root", tmp_path / "runs", "--reason", "so")
    assert code == 2
    assert "study cls has no registration in" in err
    assert len(err.splitlines()) == 1


def test_a_witness_of_an_amendment_is_shown_its_digest(dinolab, root, changed):
    path = changed(CHANGES["direction"])
    arguments = ("amend", path, "--root", root, "--reason", "so", "--witness")
    code, out, _ = dinolab(*arguments, "echo seen")
    assert code == 0
    kept = root / STUDIES / "cls" / "registrations" / "0002.witness"
    assert f"witnessed: {kept}" in out
    digest = read_study(LocalStore(root), "cls").entry.digest
    assert kept.read_text() == f"seen {digest}\n"
    code, out, _ = dinolab("report", "cls", "--root", root)
    assert f"seen {digest}" in (root / STUDIES / "cls" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_witness_that_fails_ends_a_run_before_anything_is_made(dinolab, made, root):
    code, out, err = dinolab("run", made[1], "--root", root, "--witness", "false")
    assert code == 2
    digest = read_study(LocalStore(root), "cls").entry.digest
    assert f"registration 1 of study cls: sha256 {digest}" in out
    assert "--witness false: it ended with code 1; nothing was trained" in err
    assert len(err.splitlines()) == 1
    assert not (root / STUDIES / "cls" / "report.html").exists()


def test_a_trial_that_only_an_earlier_registration_names_stays(dinolab, root, changed):
    key = read_study(LocalStore(root), "cls").entry.trials[0].key
    arguments = ("amend", changed(CHANGES["steps"]), "--root", root, "--reason", "longer")
    assert dinolab(*arguments)[0] == 0
    _, out, _ = dinolab("show", key, "--root", root)
    assert "named by: cls/baseline/0 (registration 1)" in out
    _, out, _ = dinolab("gc", "--root", root)
    assert out == "no garbage\n"


def test_a_trial_is_shown_with_the_registrations_that_it_was_trained_under(dinolab, root, changed):
    entry = read_study(LocalStore(root), "cls").entry
    place = entry.trials[0]
    arguments = ("amend", changed(CHANGES["direction"]), "--root", root, "--reason", "so")
    assert dinolab(*arguments)[0] == 0
    _, out, _ = dinolab("show", place.key, "--root", root)
    under = f"registration 1 of study cls, sha256 {entry.digest}"
    assert [line for line in out.splitlines() if "trained under" in line] == [
        f"trained under: {under}"
    ]
    path = root / "trials" / place.key / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "registrations": ["", "f" * 64, entry.digest]}))
    _, out, _ = dinolab("show", place.key, "--root", root)
    assert [line.partition(": ")[2] for line in out.splitlines() if "trained under" in line] == [
        "no registration, outside a study",
        f"a registration that is not in this root, sha256 {'f' * 64}",
        under,
    ]
    _, out, _ = dinolab("show", place.key, "--root", root, "--json")
    assert json.loads(out)["trained_under"] == [
        {"study": None, "registration": None, "sha256": None},
        {"study": None, "registration": None, "sha256": "f" * 64},
        {"study": "cls", "registration": 1, "sha256": entry.digest},
    ]
    (path.parent / "config.json").write_text("{")
    code, out, _ = dinolab("show", place.key, "--root", root, "--json")
    assert code == 0
    assert json.loads(out)["config"] is None
    path.unlink()
    _, out, _ = dinolab("show", place.key, "--root", root)
    assert "trained under" not in out
