"""Whatever of a study was changed since it was made is found and named; nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ablations.registration import registration_key, written
from dashboards.study.files import write_files
from dashboards.tables.chain import read_chain
from tests.dashboards.verification.conftest import NAME, SEEDS, Little, Root, resealed
from tests.registered import restated
from trainers.errors import InputError
from trainers.runs import trial as trials
from trainers.runs.records import digest_of
from trainers.runs.stored_trial import sealed
from trainers.system.store import open_store

STUDY = f"studies/{NAME}"
FIRST = registration_key(NAME, 1)
SECOND = registration_key(NAME, 2)


def flipped(path: Path, place: int) -> None:
    """Change one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def recorded(trial: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the records of a trial, and the digests that say so."""
    files = {}
    attempt = trial / "attempts" / "0001"
    for path in sorted(attempt.glob("metrics-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            change(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        files[path.name] = digest_of(path.read_bytes())
    for path in attempt.glob("checkpoint-*.json"):
        content = json.loads(path.read_text())
        del content["sha256"]
        content["records"] = {name: files[name] for name in content["records"]}
        path.write_bytes(sealed(content))
    resealed(trial, lambda result: result["files"].update(files))
    (trial / "values.parquet").unlink()


def forget_what_is_made(root: Root) -> None:
    for name in ("results.parquet", "verdicts.json", "report.html"):
        (root.folder / STUDY / name).unlink()
    shutil.rmtree(root.folder / STUDY / "figures")


def test_of_a_study_as_it_was_made_everything_is_checked_and_nothing_found(root: Root) -> None:
    found = root.verified()
    assert (found.findings, found.notes) == ((), ())
    runs = 3 * SEEDS
    assert found.checked == {
        "registrations": 1,
        "witnessed": 1,
        "trials": runs,
        "finished": runs,
        # configuration, result, values, and of the attempt two checkpoints, three segments, and
        # values and maps of images at both ends
        "files": runs * (3 + 2 * 2 + 3 + 2 * 2),
        "crops": 2 * SEEDS,
        "hypotheses": 1,
        "derived": 3 + 6,
        "unsealed": runs,
    }


@pytest.mark.slow
def test_one_flipped_byte_in_any_file_is_found_and_named(root: Root) -> None:
    arms = ("baseline", "cls_position_none", "one_crop_more")
    folders = (STUDY, *(f"trials/{root.key(arm, 1)}" for arm in arms))
    for key, content in root.files().items():
        if key.endswith("lease.json") or not key.startswith(folders):
            continue  # a lease only saves work: no number rests on it, and the table says so
        for place in {len(content) // 2, len(content) - 1} if key.startswith(STUDY) else {-1}:
            flipped(root.folder / key, place)
            found = root.verified().findings
            assert [one.where for one in found] == [key.removesuffix(".sha256")], (key, place)
            assert found[0].kind in ("damaged", "differs")
            (root.folder / key).write_bytes(content)
    assert root.lines() == []


@pytest.mark.parametrize("name", ["result.json", "config.json", "attempts/0001/checkpoint-4.json"])
def test_every_byte_of_a_sealed_file_counts(root: Root, name: str) -> None:
    path = root.trial("baseline", 1) / name
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 5)):
        flipped(path, place)
        assert path.as_posix().endswith(root.verified().findings[0].where)
        path.write_bytes(content)


@pytest.mark.slow
def test_any_file_that_is_gone_is_missed(root: Root) -> None:
    trial = f"trials/{root.key('baseline', 1)}"
    not_needed = (FIRST, "lease.json", "values.parquet", ".witness", ".sha256")
    for key, content in root.files().items():
        if key.startswith((f"{STUDY}/", f"{trial}/")) and not key.endswith(not_needed):
            (root.folder / key).unlink()
            gone = [one.line for one in root.verified().findings if one.where == key]
            assert len(gone) == 1
            assert gone[0].startswith(f"missing: {key}: ")
            (root.folder / key).write_bytes(content)


def test_a_dropped_seed_is_missed(root: Root) -> None:
    shutil.rmtree(root.trial("baseline", 1))
    found = root.lines()
    assert f"missing: arm baseline, seed 1: {STUDY}/results.parquet has its values" in found[-1]


def test_a_dropped_seed_is_missed_where_a_later_registration_knew_its_result(
    root: Root, little_study: Little
) -> None:
    little_study.amend(root.store, SEEDS, lambda text: text.replace("0.05", "0.06"))
    forget_what_is_made(root)
    key = f"trials/{root.key('baseline', 1)}"
    shutil.rmtree(root.folder / key)
    assert f"missing: {key}/result.json: registration 2 knew it" in root.lines()


def test_a_result_that_was_put_in_place_of_a_known_one_is_found(
    root: Root, little_study: Little
) -> None:
    little_study.amend(root.store, SEEDS, lambda text: text.replace("0.05", "0.06"))
    resealed(root.trial("baseline", 1), lambda result: result.update(wall_s=0.1))
    what = "registration 2 knew another result of this trial"
    assert f"differs: trials/{root.key('baseline', 1)}/result.json: {what}" in root.lines()


def test_an_edited_value_is_named_with_its_run_and_step(root: Root) -> None:
    path = root.folder / STUDY / "results.parquet"
    table = pq.read_table(path)
    of_all = [
        pc.equal(table[name], value)
        for name, value in {"arm": "baseline", "seed": 1, "metric": "loss/total", "step": 3}.items()
    ]
    this = of_all[0]
    for one in of_all[1:]:
        this = pc.and_(this, one)
    edited = pc.if_else(this, pa.scalar(0.5), table["value"])
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, table.schema.field(place), edited), path)
    (line,) = root.lines()
    what = "arm baseline, seed 1, loss/total at step 3: value is 0.5, its trial has "
    assert line.startswith(f"differs: {STUDY}/results.parquet: {what}")


def test_rows_left_out_of_the_results_are_named(root: Root) -> None:
    path = root.folder / STUDY / "results.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["seed"], 2)), path)
    (line,) = root.lines()
    assert "arm baseline, seed 2 has 0 values, its trial " in line


def test_an_edited_label_is_named(root: Root) -> None:
    path = root.folder / STUDY / "verdicts.json"
    verdicts = json.loads(path.read_text())
    (name,) = verdicts["hypotheses"]
    was = verdicts["hypotheses"][name]["verdict"]["label"]
    verdicts["hypotheses"][name]["verdict"]["label"] = "supported"
    path.write_text(json.dumps(verdicts, indent=2, ensure_ascii=False) + "\n")
    (line,) = root.lines()
    what = f'hypotheses.{name}.verdict.label is "supported", the trials give "{was}"'
    assert line.startswith(f"differs: {STUDY}/verdicts.json: {what}")


def test_an_edited_report_is_named(root: Root) -> None:
    path = root.folder / STUDY / "report.html"
    path.write_text(path.read_text().replace("<h2>Verdicts", "<h2>Sure verdicts", 1))
    (line,) = root.lines()
    assert line.startswith(f"differs: {STUDY}/report.html: ")


def test_a_verdict_without_one_of_its_runs_is_found_though_all_files_agree(root: Root) -> None:
    """Somebody hides a run, judges, and puts it back."""
    trial = root.trial("baseline", 1)
    shutil.move(trial, root.folder / "hidden")
    write_files(root.store, NAME)
    shutil.move(root.folder / "hidden", trial)
    found = root.verified().findings
    assert [one.kind for one in found] == ["differs"] * len(found)
    assert {f"{STUDY}/{name}" for name in ("results.parquet", "verdicts.json", "report.html")} <= {
        one.where for one in found
    }


def test_an_inserted_registration_is_found(root: Root) -> None:
    content = json.loads((root.folder / FIRST).read_text())
    del content["sha256"], content["git"]
    (root.folder / SECOND).write_bytes(written({**content, "number": 2, "parent": "0" * 64}))
    (line,) = root.lines()
    assert line.startswith(f"differs: {SECOND}: it follows sha256 000000000000, and the one before")


def test_a_registration_that_lacks_a_trial_is_said_to(root: Root) -> None:
    restated(root.folder / FIRST, lambda content: content["trials"].pop())
    lacks = f"no trial for arm 'one_crop_more', seed {SEEDS - 1}"
    (line,) = (one for one in root.lines() if FIRST in one)
    assert line.startswith(f"damaged: {FIRST}: its digest fits, and what it says does not: ")
    assert lacks in line


def test_removed_and_reordered_registrations_are_found(root: Root, little_study: Little) -> None:
    def amend(effect: str) -> None:
        little_study.amend(root.store, SEEDS, lambda text: text.replace("0.05", effect))

    amend("0.06")
    amend("0.07")
    write_files(root.store, NAME)
    third = registration_key(NAME, 3)
    paths = [root.folder / key for key in (FIRST, SECOND, third)]
    first, second, last = (path.read_bytes() for path in paths)

    paths[1].unlink()
    assert root.lines()[0] == f"missing: {SECOND}: a later registration is there"
    paths[1].write_bytes(last)
    paths[2].write_bytes(second)
    wrong = {one.where for one in root.verified().findings if one.kind == "differs"}
    assert {SECOND, third} <= wrong
    paths[1].write_bytes(second)
    paths[2].unlink()
    assert any("registration.number is 3, the trials give 2" in line for line in root.lines())
    paths[2].write_bytes(last)
    restated(paths[0], lambda content: content.update(reason="none", created="1999"))
    assert any(line.startswith(f"differs: {SECOND}: it follows") for line in root.lines())
    paths[0].write_bytes(first)


def test_seeds_added_until_it_fits_are_a_deviation(root: Root, little_study: Little) -> None:
    little_study.amend(root.store, SEEDS + 1)
    little_study.train(root.store, SEEDS + 1)
    write_files(root.store, NAME)
    what = f"seed {SEEDS} were added, knowing {3 * SEEDS} results"
    assert root.lines() == [f"deviated: {SECOND}: {what.replace('were', 'was')}"]


def test_seeds_added_under_another_name_are_a_deviation(root: Root, little_study: Little) -> None:
    def renamed(text: str) -> str:
        return text.replace("name: little", "name: other")

    little_study.train(root.store, SEEDS + 1, renamed)
    write_files(root.store, "other")
    from dashboards.verification.study import verify_study

    (finding,) = verify_study(root.store, "other", {}).findings
    assert finding.kind == "deviated"
    assert f"seed {SEEDS} was added to seeds 0, 1, 2, whose results existed" in finding.what
    shutil.rmtree(root.folder / "studies" / NAME)
    assert finding in verify_study(root.store, "other", {}).findings


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("seeds: 3", "seeds: [0, 2]"), "seed 1 was left out, knowing 9 results"),
        (
            ("{augment.local_crops: 3}", "{augment.local_crops: 4}"),
            "arm one_crop_more was redefined, knowing 3 results",
        ),
        (
            ("batch_size: 8", "batch_size: 12"),
            "all arms were redefined (batch_size), knowing 9 results",
        ),
        (
            ("  - one_crop_more: {augment.local_crops: 3}\n", ""),
            "arm one_crop_more was left out, knowing 9 results",
        ),
        (
            ("  none_is_equivalent:\n", "  none_is_the_same:\n"),
            "hypothesis none_is_equivalent was left out, knowing 6 results",
        ),
    ],
)
def test_a_plan_that_was_changed_knowing_results_is_a_deviation(
    root: Root, little_study: Little, change: tuple[str, str], what: str
) -> None:
    little_study.amend(root.store, SEEDS, lambda text: text.replace(*change))
    assert f"deviated: {SECOND}: {what}" in root.lines()


def test_a_plan_that_was_changed_before_any_result_is_no_deviation(
    little_study: Little, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "new", make=True)
    from orchestrator.registration import Statement

    Statement(*little_study.plan(SEEDS), store).register()
    little_study.amend(store, SEEDS + 1)
    found = Root(store).verified()
    assert found.findings == ()
    assert found.notes[0].startswith(f"not finished: {3 * (SEEDS + 1)} of {3 * (SEEDS + 1)} runs")


def test_a_study_that_has_not_finished_is_no_finding(root: Root) -> None:
    forget_what_is_made(root)
    for arm in ("baseline", "cls_position_none"):
        shutil.rmtree(root.trial(arm, 2))
    found = root.verified()
    assert found.findings == ()
    unfinished = "baseline: seed 2; cls_position_none: seed 2"
    assert found.notes == (
        f"not finished: 2 of 9 runs have no result ({unfinished})",
        "it has not been judged yet: no results, verdicts or report",
    )


def test_seeds_left_out_are_a_deviation(root: Root) -> None:
    forget_what_is_made(root)
    shutil.rmtree(root.trial("baseline", 1))
    what = "seed 1 left out, and later seeds have results"
    assert root.lines() == [f"deviated: {NAME}: baseline: {what}"]


def test_other_crops_at_one_seed_are_named_at_their_first_step(root: Root) -> None:
    def other(record: dict[str, Any]) -> None:
        if record["step"] >= 3 and "data/chain" in record["metrics"]:
            record["metrics"]["data/chain"] += 1

    trial = root.trial("cls_position_none", 1)
    recorded(trial, other)
    key = root.key("cls_position_none", 1)
    found = root.lines()
    what = "cls_position_none, seed 1: other crops up to step 3 than baseline, seed 1"
    assert any(line.startswith(f"differs: trials/{key}: {what}") for line in found)
    assert any(line.startswith(f"differs: trials/{key}/result.json: its chain") for line in found)


def test_pairs_of_other_machines_are_named(root: Root) -> None:
    resealed(root.trial("baseline", 1), lambda result: result.update(torch="1.0"))
    found = root.lines()
    assert any(
        line.startswith(
            "differs: hypothesis none_is_equivalent: pairs differ in device, versions or workers"
        )
        and "seed 1" in line
        for line in found
    )


def test_runs_of_another_arm_under_its_name_are_found(root: Root) -> None:
    def exchange(content: dict[str, Any]) -> None:
        for place in content["trials"]:
            names = {"baseline": "cls_position_none", "cls_position_none": "baseline"}
            place["arm"] = names.get(place["arm"], place["arm"])

    restated(root.folder / FIRST, exchange)
    key = root.key("baseline", 0)
    what = 'it is not that of arm baseline, seed 0: model.cls_position "none" for "learned"'
    assert f"differs: trials/{key}/config.json: {what}" in root.lines()


def test_a_key_is_that_of_configuration_data_and_registered_code(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "code_versions", lambda: {"trainers.other": "0"})
    assert root.lines() == []
    restated(root.folder / FIRST, lambda content: content["code"].update({"trainers.grid": "0"}))
    found = [line for line in root.lines() if "config.json" in line]
    assert len(found) == 3 * SEEDS
    assert "the code of registration 1 it is another trial than this" in found[0]


def test_a_study_without_a_registration_is_refused_in_one_line(root: Root) -> None:
    (root.folder / FIRST).unlink()
    with pytest.raises(InputError, match="has no registration: there is nothing to verify"):
        root.verified()


def test_an_older_registration_that_was_judged_is_still_compared(
    root: Root, little_study: Little
) -> None:
    little_study.amend(root.store, SEEDS, lambda text: text.replace("0.05", "0.06"))
    assert len(read_chain(root.store, NAME)) == 2
    found = root.verified()
    (restated,) = found.findings
    what = "hypothesis none_is_equivalent was redefined (smallest_effect 0.05 -> 0.06)"
    assert restated.line == f"deviated: {SECOND}: {what}, knowing 6 results"
    assert "verdicts are those of registration 1, and the newest is 2" in found.notes[0]
