"""Where [CLS] looks, in the report of a study: which seed, images and steps, and why not."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboards.figures.sheets import drawn
from dashboards.study.compared import compared_maps
from dashboards.study.figures import every_figure
from dashboards.study.files import write_one
from dashboards.study.maps import FEW, every_sheet, photographs, shown_sheets
from dashboards.study.report import report_page
from dashboards.tables.derived import judged
from dashboards.tables.reading import StudyRun, read_study
from tests.dashboards.conftest import ARMS, Made, MakeStudy
from tests.dashboards.kept_maps import IMAGES, keep, kept_maps
from trainers.config.map_steps import MOST_MAP_STEPS
from trainers.errors import InputError
from trainers.runs.maps import KeptMaps
from trainers.system.store import LocalStore

SHEETS = [
    "attention_by_arm",
    "attention_over_training",
    "rollout_by_arm",
    "influence_by_arm",
]


def kept(made: Made, arm: str, seed: int, steps: dict[int, KeptMaps] | None = None) -> None:
    steps = steps or {0: kept_maps(1, is_last=False), 600: kept_maps(2)}
    keep(made.root / made.trial(arm, seed).folder, steps)


def page_of(study: StudyRun) -> str:
    verdicts = judged(study)
    return report_page(study, verdicts, every_figure(study, verdicts)).decode()


def notes(study: StudyRun, sheet: str = "attention_by_arm") -> dict[str, str]:
    (band,) = every_sheet(study.maps)[sheet].bands
    return {column.name: column.note for column in band.columns}


@pytest.fixture
def pictured(make_study: MakeStudy) -> Made:
    """A study of which every run at seeds 2 and 3 has kept maps, and one at seed 0."""
    made = make_study()
    kept(made, "baseline", 0)
    for arm in ARMS:
        for seed in (2, 3):
            kept(made, arm, seed)
    return made


def test_pictures_are_of_the_first_seed_that_every_arm_has(pictured: Made) -> None:
    study = read_study(*pictured)
    assert study.maps is not None
    assert study.maps.seed == 2
    (pictured.root / pictured.trial("baseline", 2).result_key).unlink()
    (pictured.root / pictured.trial("baseline", 3).result_key).unlink()
    study = read_study(*pictured)
    assert study.maps is not None
    assert study.maps.seed == 2
    assert notes(study)["baseline"] == "not finished"


def results_asked_for(study: StudyRun, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the store to find the maps of a study that has been read."""
    asked = []
    get = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, key: asked.append(key) or get(self, key))
    assert study.maps is None or study.maps.seed == 2
    return [key for key in asked if key.endswith("/result.json")]


def test_of_no_seed_but_the_one_that_is_shown_are_results_read_again(
    pictured: Made, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (2, 3):
        (pictured.root / pictured.trial("cls_position_none", seed).result_key).unlink()
    asked = results_asked_for(read_study(*pictured), monkeypatch)
    assert sorted(asked) == sorted(
        pictured.trial(arm, 2).result_key for arm in ARMS if arm != "cls_position_none"
    )
    without = read_study(*make_study(root=tmp_path / "other"))
    assert results_asked_for(without, monkeypatch) == []


def test_a_root_without_maps_has_no_pictures(make_study: MakeStudy) -> None:
    study = read_study(*make_study())
    assert every_sheet(study.maps) == {}
    assert photographs({}) == []


def test_every_arm_has_a_column_of_the_same_images(pictured: Made) -> None:
    study = read_study(*pictured)
    sheets = every_sheet(study.maps)
    assert list(sheets) == SHEETS
    for name in ("attention_by_arm", "rollout_by_arm"):
        assert notes(study, name) == dict.fromkeys(ARMS, "")
        assert len(sheets[name].pixels) == FEW
        assert {len(one.maps) for one in sheets[name].bands[0].columns} == {FEW}
    # Of fewer images than others: no empty row.
    assert len(sheets["influence_by_arm"].pixels) == 3
    expected = kept_maps(2).attention[-1, :FEW]
    for column in sheets["attention_by_arm"].bands[0].columns:
        largest = expected.max((-2, -1))
        assert abs(np.stack(column.maps) - expected).max() <= largest.max() / 255


@pytest.mark.parametrize(
    ("change", "said", "has_map"),
    [
        ("no [CLS]", "no [CLS]", False),
        ("none", "none kept", False),
        ("damaged", "damaged", False),
        ("other images", "of other images", False),
        ("collapsed", "collapsed", True),
        ("failed", "failed", False),
        ("running", "not finished", False),
    ],
)
def test_an_arm_without_a_map_says_why(
    make_study: MakeStudy, change: str, said: str, has_map: bool
) -> None:
    arm = "loss_on_patches"
    endings = {(arm, 0): change} if change in ("collapsed", "failed", "running") else {}
    made = make_study(endings)
    for one in ARMS:
        if (one, change) not in ((arm, "none"), (arm, "failed"), (arm, "running")):
            kept(made, one, 0)
    if change == "no [CLS]":
        kept(made, arm, 0, {600: kept_maps(1, is_cls=False)})
    if change == "damaged":
        next((made.root / made.trial(arm, 0).attempt_folder(1)).glob("maps-600.*")).unlink()
    if change == "other images":
        other = kept_maps(1)
        other.images[0] += 1
        kept(made, arm, 0, {600: other})
    study = read_study(*made)
    assert study.maps is not None
    assert study.maps.seed == 0
    assert notes(study) == {"baseline": "", "cls_position_none": "", arm: said}
    page = page_of(study)
    assert f'{arm.replace("_", "_<wbr>")}</bdi> <span class="quiet">{said}</span>' in page
    assert ("no map" in page) is not has_map


def test_over_training_shows_some_steps_with_the_first_and_the_last(make_study: MakeStudy) -> None:
    made = make_study()
    steps = {step: kept_maps(step, is_last=step == 600) for step in range(0, 601, 50)}
    for arm in ARMS:
        kept(made, arm, 0, steps)
    sheet = every_sheet(read_study(*made).maps)["attention_over_training"]
    assert [band.name for band in sheet.bands] == list(ARMS)
    names = [column.name for column in sheet.bands[0].columns]
    assert len(names) == MOST_MAP_STEPS
    assert (names[0], names[-1]) == ("step 0", "step 600")
    assert len(sheet.pixels) == FEW // 2


def test_a_map_of_nan_is_said_to_be_none(make_study: MakeStudy) -> None:
    made = make_study()
    empty = kept_maps(1)
    empty.attention[-1, 1] = np.nan
    for arm in ARMS:
        kept(made, arm, 0, {600: empty})
    study = read_study(*made)
    shown = shown_sheets(every_sheet(study.maps))["attention_by_arm"]["bands"][0]["columns"][0]
    assert [bool(file) for file in shown["files"]] == [True, False, True, True]
    rows = cells(made, "attention_by_arm")
    assert [row[4] == "" for row in rows[:FEW]] == [False, True, False, False]


def cells(made: Made, name: str) -> list[list[str]]:
    key = write_one(*made, None, name, "csv")
    return list(csv.reader(io.StringIO((made.root / key).read_text(), newline="")))[1:]


def test_numbers_of_pictures_are_a_table(pictured: Made) -> None:
    rows = cells(pictured, "attention_by_arm")
    assert [row[:4] for row in rows] == [
        [arm, "step 600", str(image), "64"] for arm in ARMS for image in range(1, FEW + 1)
    ]
    assert all(1 <= int(row[4]) <= 64 and float(row[5]) > 1 for row in rows)
    assert len(cells(pictured, "attention_over_training")) == len(ARMS) * 2 * FEW // 2


def test_pictures_are_files_for_a_paper_without_a_browser(
    pictured: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    starts = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}
    for name, (form, start) in zip(SHEETS[:3], starts.items(), strict=True):
        key = write_one(*pictured, name, None, form)
        assert key.endswith(f"figures/{name}.{form}")
        assert (pictured.root / key).read_bytes().startswith(start)


@pytest.mark.slow
def test_a_page_has_each_image_once_and_needs_nothing_else(pictured: Made) -> None:
    (pictured.root / pictured.trial("loss_on_patches", 2).result_key).unlink()
    (pictured.root / pictured.trial("loss_on_patches", 3).result_key).unlink()
    page = page_of(read_study(*pictured))
    assert "<h2>Where [CLS] looks</h2>" in page
    assert "at seed 2." in page
    assert 'aria-label="baseline, step 600: 60% of the map lies on ' in page
    assert 'loss_<wbr>on_<wbr>patches</bdi> <span class="quiet">not finished</span>' in page
    assert len(re.findall(r"url\(\"data:image/webp;base64,", page)) == 2 * FEW
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == (len(ARMS) - 1) * (FEW + 2 * FEW // 2 + FEW + 3)
    assert all(one.startswith("data:image/png;base64,") for one in sources)


def test_two_studies_are_compared_on_images_of_one_name(pictured: Made) -> None:
    first = read_study(*pictured)
    assert first.maps is not None
    sheet = compared_maps(first, first)
    names = [column.name for column in sheet.bands[0].columns]
    assert names == [f"{mark}: {arm}" for arm in ARMS for mark in "AB"]
    assert sheet.above == (f"A: {first.name}", f"B: {first.name}")
    titles = [text.get_text() for text in drawn(sheet).texts if text.get_fontsize() == 6]
    assert len(set(titles)) == len(titles) == 1 + len(names)
    for seed in (0, 2, 3):
        for arm in ARMS:
            turned = kept_maps(7)
            kept(pictured, arm, seed, {600: turned})
            turned.images[:] = turned.images[::-1].copy()
            kept(pictured, arm, seed, {600: turned})
    sheet = compared_maps(first, read_study(*pictured))
    other = sheet.bands[0].columns[1].maps
    assert abs(np.stack(other) - kept_maps(7).attention[-1, ::-1][:FEW]).max() < 0.01
    assert IMAGES[:FEW] == first.maps.images[:FEW]


def of_arms(study: StudyRun, prefix: str) -> StudyRun:
    """The study with that before the names of its arms."""
    arms = {f"{prefix}{arm}": changes for arm, changes in study.entry.resolved.arms.items()}
    resolved = study.entry.resolved.model_copy(update={"arms": arms})
    runs = {(f"{prefix}{arm}", seed): run for (arm, seed), run in study.runs.items()}
    chain = (study.entry.model_copy(update={"resolved": resolved}),)
    return replace(study, chain=chain, runs=runs)


def test_studies_of_no_arm_in_common_are_compared_by_their_first(pictured: Made) -> None:
    first = read_study(*pictured)
    sheet = compared_maps(first, of_arms(first, "other_"))
    names = [column.name for column in sheet.bands[0].columns]
    assert names == ["A: baseline", "B: other_baseline"]
    assert all(len(column.maps) == FEW for column in sheet.bands[0].columns)


def test_maps_of_other_images_are_not_compared(pictured: Made) -> None:
    first = read_study(*pictured)
    assert first.maps is not None
    others = kept_maps(7)
    others.images[:] += 1000
    for arm in ARMS:
        kept(pictured, arm, 2, {600: others})
        kept(pictured, arm, 3, {600: others})
    kept(pictured, "baseline", 0, {600: others})
    with pytest.raises(InputError, match="of no image in common"):
        compared_maps(first, read_study(*pictured))


def test_images_come_from_whichever_maps_have_them(
    pictured: Made, make_study: MakeStudy, tmp_path: Path
) -> None:
    with_images, of_before = read_study(*pictured), make_study(root=tmp_path / "other")
    for arm in ARMS:
        kept(of_before, arm, 0, {0: kept_maps(1, is_last=False)})
    without = read_study(*of_before)
    assert without.maps is not None
    assert without.maps.pixels.shape == (len(IMAGES), 1, 1, 3)
    expected = kept_maps(1).pixels
    assert expected is not None
    for pair in ((with_images, without), (without, with_images)):
        assert np.array_equal(np.stack(compared_maps(*pair).pixels), expected[:FEW])
    kept(of_before, list(ARMS)[-1], 0, {0: kept_maps(1), 300: kept_maps(2, is_last=False)})
    maps = read_study(*of_before).maps
    assert maps is not None
    assert np.array_equal(maps.pixels, expected)


def test_a_study_that_has_kept_no_maps_is_said_in_a_line(
    pictured: Made, make_study: MakeStudy, tmp_path: Path
) -> None:
    first, second = read_study(*pictured), read_study(*make_study(root=tmp_path / "other"))
    with pytest.raises(InputError, match="has kept maps"):
        compared_maps(first, second)
