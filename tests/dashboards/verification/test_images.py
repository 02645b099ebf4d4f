"""The choice of held-out images, from trained runs to verdicts, report and verification."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ablations.statistics.crossed import crossed_error
from dashboards.study.files import write_files
from dashboards.tables.chain import read_entry
from orchestrator.garbage import delete, garbage
from tests.dashboards.verification.conftest import NAME, SEEDS, Little, Root
from tests.dashboards.verification.test_verification import flipped, resealed
from trainers.runs.attempt import Attempt
from trainers.runs.by_image import AT_START, BY_IMAGE

ARMS = ("baseline", "cls_position_none", "one_crop_more")
METRIC = "globality/contrast/gyration"


def of_gyration(text: str) -> str:
    return text.replace("metric: loss/total", f"metric: {METRIC}")


@pytest.fixture
def judged(root: Root, little_study: Little) -> Root:
    """The study, stated again of a metric that is a mean over images, and judged."""
    little_study.amend(root.store, SEEDS, of_gyration)
    write_files(root.store, NAME)
    return root


def entry_of(root: Root) -> dict:
    verdicts = json.loads((root.folder / f"studies/{NAME}/verdicts.json").read_text())
    (entry,) = verdicts["hypotheses"].values()
    return entry


def report_of(root: Root) -> str:
    return " ".join((root.folder / f"studies/{NAME}/report.html").read_text().split())


def damages(root: Root) -> list[str]:
    """Where there is more to find than that the fixture restated its hypothesis knowing results."""
    return [one.where for one in root.verified().findings if one.kind != "deviated"]


def test_a_trained_study_says_how_much_of_its_error_is_the_choice_of_images(judged: Root) -> None:
    kept = {
        (arm, seed): safetensors.numpy.load(
            (judged.trial(arm, seed) / f"attempts/0001/{BY_IMAGE}").read_bytes()
        )[METRIC].astype(float)
        for arm in ARMS
        for seed in range(SEEDS)
    }
    differences = [kept["cls_position_none", s] - kept["baseline", s] for s in range(SEEDS)]
    entry = entry_of(judged)
    assert np.mean(differences) == pytest.approx(entry["verdict"]["mean"], abs=1e-6)
    expected = crossed_error(np.stack(differences), 0.1)
    assert entry["images"]["share"] == pytest.approx(expected.share)
    assert entry["images"]["interval"] == pytest.approx(expected.interval)
    assert entry["images"]["images"] == 2
    assert "<dt>Held-out images</dt><dd>their choice is" in report_of(judged)
    assert damages(judged) == []


def test_a_verdict_with_another_share_of_images_is_found(judged: Root) -> None:
    path = judged.folder / f"studies/{NAME}/verdicts.json"
    verdicts = json.loads(path.read_text())
    next(iter(verdicts["hypotheses"].values()))["images"]["share"] = 0.123
    path.write_text(json.dumps(verdicts))
    assert any("images.share is 0.123" in line for line in judged.lines())


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damaged_values_of_images_are_found_and_the_run_counts_no_more(
    judged: Root, how: str
) -> None:
    path = judged.trial("baseline", 1) / f"attempts/0001/{BY_IMAGE}"
    if how == "missing":
        path.unlink()
    else:
        flipped(path, -1)
    assert damages(judged) == [path.relative_to(judged.folder).as_posix()]
    assert any("are not compared" in note for note in judged.verified().notes)
    write_files(judged.store, NAME)
    verdict = entry_of(judged)["verdict"]
    assert verdict["label"] == "failed"
    assert BY_IMAGE in verdict["reason"]


def test_a_change_since_the_start_has_a_share_of_images_too(
    root: Root, little_study: Little
) -> None:
    little_study.amend(
        root.store, SEEDS, lambda text: of_gyration(text) + "    minus_start: true\n"
    )
    write_files(root.store, NAME)

    def kept(arm: str, seed: int, name: str) -> Any:
        content = (root.trial(arm, seed) / f"attempts/0001/{name}").read_bytes()
        return safetensors.numpy.load(content)[METRIC].astype(float)

    changes = {
        arm: np.stack([kept(arm, s, BY_IMAGE) - kept(arm, s, AT_START) for s in range(SEEDS)])
        for arm in ARMS
    }
    expected = crossed_error(changes["cls_position_none"] - changes["baseline"], 0.1)
    entry = entry_of(root)
    assert entry["images"]["share"] == pytest.approx(expected.share)
    assert entry["images"]["interval"] == pytest.approx(expected.interval)
    assert damages(root) == []
    path = root.trial("baseline", 1) / f"attempts/0001/{AT_START}"
    flipped(path, -1)
    assert damages(root) == [path.relative_to(root.folder).as_posix()]
    write_files(root.store, NAME)
    assert entry_of(root)["verdict"]["label"] == "failed"


def test_values_of_images_at_step_0_are_nothing_to_another_end_point(judged: Root) -> None:
    before = entry_of(judged)
    flipped(judged.trial("baseline", 1) / f"attempts/0001/{AT_START}", -1)
    write_files(judged.store, NAME)
    assert entry_of(judged) == before


def test_damaged_maps_are_found_and_verdicts_rest_on_none(judged: Root) -> None:
    before = entry_of(judged)
    path = judged.trial("baseline", 1) / "attempts/0001/maps-0.safetensors"
    flipped(path, -1)
    assert damages(judged) == [path.relative_to(judged.folder).as_posix()]
    write_files(judged.store, NAME)
    assert entry_of(judged) == before


class Killed(BaseException):
    """The process is not there any more."""


def test_maps_that_were_measured_again_are_not_missed_once_they_are_cleared_away(
    root: Root, little_study: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(root.trial("baseline", 1))
    asked = read_entry(root.store, NAME).digest

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "commit", killed)
        with pytest.raises(Killed):
            little_study.run(root.store, *little_study.plan(SEEDS), asked)
    little_study.run(root.store, *little_study.plan(SEEDS), asked)
    maps = root.trial("baseline", 1) / "attempts/0001/maps-4.safetensors"
    assert maps.is_file()
    delete(garbage(root.store, single=False), root.store)
    assert not maps.is_file()
    write_files(root.store, NAME)
    assert damages(root) == []
    (root.trial("baseline", 1) / "attempts/0001/maps-0.safetensors").unlink()
    assert len(damages(root)) == 1


def test_runs_of_before_values_of_images_are_judged_the_same_without_them(judged: Root) -> None:
    before = entry_of(judged)
    for arm in ARMS:
        for seed in range(SEEDS):
            trial = judged.trial(arm, seed)
            (trial / f"attempts/0001/{BY_IMAGE}").unlink()
            resealed(trial, lambda result: result["files"].pop(BY_IMAGE))
    write_files(judged.store, NAME)
    after = entry_of(judged)
    assert after.pop("images") is None
    assert after == {name: one for name, one in before.items() if name != "images"}
    assert "not measured how much their choice matters" in report_of(judged)
