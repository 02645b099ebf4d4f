"""A sequential study of a trainer that knows the truth: looks that were not planned are found.

Registration, attempts, records, results, verdicts and report are the real ones.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ablations.registration import registration_key
from ablations.study.loading import load_study
from dashboards.study.files import write_files
from dashboards.tables.chain import read_chain
from dashboards.verification.study import verify_study
from orchestrator.plan import Plan, make_plan
from orchestrator.registration import JUDGING, Statement
from tests.reliability.little import ALONE
from trainers.data.image_set import ImageSet, open_images
from trainers.runs import trial as runs_trial
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial
from trainers.runs.version import versions_below
from trainers.system.store import Store, open_store
from trainers.training.loop import Result

NAME, METRIC = "looked", "knn/cls_top1"

STUDY = """
name: looked
recipe: digits_tiny
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
looks: [6, 8, 10]
spending: obf
set: {steps: 2}
arms:
  - none: {model.cls_position: none}
hypotheses:
  none_hurts:
    metric: knn/cls_top1
    contrast: [none, baseline]
    direction: falls
    smallest_effect: 0.02
"""

VERDICTS = f"studies/{NAME}/verdicts.json"


def planned(folder: Path, *changes: tuple[str, str]) -> tuple[Plan, ImageSet]:
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "looked.yaml").write_text(text)
    study = load_study(folder / "looked.yaml")
    images = open_images(study.base.data, folder / "index")
    return make_plan(study, images), images


def train(store: Store, plan: Plan, images: ImageSet, seeds: range) -> None:
    """Run the trials of some seeds; without a position [CLS] is worse, by more than noise."""
    registration = read_chain(store, NAME)[-1].digest
    for one in plan.trials:
        if one.seed not in seeds:
            continue
        top = 0.8 + 0.01 * one.seed - (0.1 if "none" in one.arms else 0.0)
        top += random.Random(one.key).gauss(0, 0.01)

        def trained(config: Any, top: float = top, **given: Any) -> Result:
            for step in range(config.steps + 1):
                given["reporter"].report(step, {METRIC: top if step else 0.1})
            return Result(status="finished", reason="", step=config.steps, chain="")

        with mock.patch.object(runs_trial, "train", trained):
            assert run_trial(
                StoredTrial(store, one.key), one.config, images=images, world=ALONE,
                reporter=Fanout(), asking=Asking(registration=registration),
            )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run root of that study, which stopped at its second look, as its boundary allows."""
    folder = tmp_path_factory.mktemp("looked")
    store = open_store(folder / "runs", make=True)
    plan, images = planned(folder)
    Statement(plan, images, store).register()
    train(store, plan, images, range(8))
    write_files(store, NAME)
    return folder / "runs"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "runs")


def lines(root: Path, kind: str = "deviated") -> list[str]:
    found = verify_study(open_store(root), NAME, versions_below(JUDGING)).findings
    return [one.line for one in found if one.kind == kind]


def edited(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the verdict of the hypothesis in `verdicts.json`."""
    content = json.loads((root / VERDICTS).read_bytes())
    change(content["hypotheses"]["none_hurts"]["verdict"])
    (root / VERDICTS).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def test_a_study_that_stopped_where_its_boundary_allows_is_whole(root: Path) -> None:
    verdict = json.loads((root / VERDICTS).read_bytes())["hypotheses"]["none_hurts"]["verdict"]
    assert (verdict["label"], len(verdict["looks"])) == ("supported", 2)
    found = verify_study(open_store(root), NAME, versions_below(JUDGING))
    assert (found.findings, found.notes) == ((), ())


def test_a_look_that_was_not_planned_is_found(root: Path) -> None:
    edited(root, lambda verdict: verdict["looks"][0].update(seeds=7))
    what = "hypothesis none_hurts was looked at with 7 seeds; looks are planned at 6, 8, 10"
    assert lines(root) == [f"deviated: {VERDICTS}: {what}"]
    assert len(lines(root, "differs")) == 1


def test_an_end_that_the_boundary_did_not_allow_is_found(root: Path) -> None:
    def stopped(verdict: dict[str, Any]) -> None:
        verdict.update(looks=verdict["looks"][:1], seeds=verdict["seeds"][:6], label="supported")
        verdict["reason"] = verdict["reason"].replace("look 2 of 3, 8", "look 1 of 3, 6")

    edited(root, stopped)
    (line,) = lines(root)
    what = "hypothesis none_hurts was stopped at look 1, with 6 seeds, which its boundary does not"
    assert line.startswith(f"deviated: {VERDICTS}: {what} allow: p is 0.0312, against 0.0")


def test_an_end_that_was_not_allowed_is_found_where_no_later_run_was_made(
    tmp_path: Path, made: Path
) -> None:
    store = open_store(tmp_path / "runs", make=True)
    plan, images = planned(tmp_path)
    Statement(plan, images, store).register()
    train(store, plan, images, range(6))
    write_files(store, NAME)
    assert lines(tmp_path / "runs") == []
    theirs = json.loads((made / VERDICTS).read_bytes())["hypotheses"]["none_hurts"]["verdict"]
    edited(
        tmp_path / "runs",
        lambda verdict: verdict.update(
            looks=theirs["looks"][:1], seeds=[0, 1, 2, 3, 4, 5], label="supported"
        ),
    )
    (line,) = lines(tmp_path / "runs")
    assert "was stopped at look 1, with 6 seeds, which its boundary does not allow" in line


def test_a_report_while_it_runs_is_no_end(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs", make=True)
    plan, images = planned(tmp_path)
    Statement(plan, images, store).register()
    for seeds in (range(6), range(6, 7), range(7, 8)):
        train(store, plan, images, seeds)
        write_files(store, NAME)
        assert lines(tmp_path / "runs") == []


def test_looks_of_a_study_that_planned_none_are_found(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs", make=True)
    plan, images = planned(tmp_path, ("looks: [6, 8, 10]\nspending: obf\n", ""))
    Statement(plan, images, store).register()
    train(store, plan, images, range(10))
    write_files(store, NAME)
    edited(tmp_path / "runs", lambda verdict: verdict.update(looks=[{"seeds": 6}]))
    what = "hypothesis none_hurts was looked at with 6 seeds; looks are planned nowhere"
    assert lines(tmp_path / "runs") == [f"deviated: {VERDICTS}: {what}"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("looks: [6, 8, 10]", "looks: [8, 10]"), "looks were redefined"),
        (("spending: obf", "spending: pocock"), "looks were redefined"),
        (("looks: [6, 8, 10]\nspending: obf\n", ""), "looks were redefined"),
        (
            ("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "[9, 8, 0, 1, 2, 3, 4, 5, 6, 7]"),
            "seeds were put in another order (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 -> 9, 8, 0, 1, 2, 3, 4, "
            "5, 6, 7), so that others count at a look",
        ),
    ],
)
def test_looks_that_were_changed_knowing_results_are_found(
    root: Path, tmp_path: Path, change: tuple[str, str], what: str
) -> None:
    store = open_store(root)
    Statement(*planned(tmp_path, change), store).amend("so")
    assert f"deviated: {registration_key(NAME, 2)}: {what}, knowing 16 results" in lines(root)
