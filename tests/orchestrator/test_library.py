"""What a program or a notebook imports: the same as the commands, as objects and exceptions."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import orchestrator
from dashboards.tables.derived import judged, write_results, write_verdicts
from dashboards.tables.reading import read_study
from orchestrator import load_results, measure, run
from tests.dashboards.conftest import ARMS, SEEDS, maker
from tests.orchestrator.conftest import environment
from tests.registered import restated
from trainers.errors import InputError

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "notebook.py"


def test_the_package_is_imported_without_what_takes_long():
    code = (
        "import sys, orchestrator; names = sorted(dir(orchestrator));"
        "assert {'run', 'load_results', 'measure'} <= set(names), names;"
        "slow = {'torch', 'ray', 'mlflow', 'pandas', 'typer', 'rich'} & set(sys.modules);"
        "assert not slow, slow;"
        "from orchestrator import run, load_results, measure;"
        "slow = {'torch', 'ray', 'mlflow', 'pandas'} & set(sys.modules); assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_it_has_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = orchestrator.runs


def test_results_are_those_that_a_study_writes(tmp_path):
    made = maker(tmp_path / "runs")()
    study = read_study(made.store, made.name)
    write_results(study)
    write_verdicts(study, judged(study))
    results = load_results(made.root, made.name)
    assert results.verdicts == json.loads((made.folder / "verdicts.json").read_text())
    written = pq.read_table(made.folder / "results.parquet")
    of_the_model = ~results.table.metric.str.startswith("time/")
    assert list(results.table) == written.column_names
    assert results.table[of_the_model].value.tolist() == written["value"].to_pylist()
    assert results.labels["cls_needs_no_position"] == "supported"
    assert results.runs.value_counts("status").to_dict() == {"finished": len(ARMS) * len(SEEDS)}


def test_results_show_themselves_and_names_do_nothing(tmp_path):
    made = maker(tmp_path / "runs")({("baseline", 0): "missing"})
    claim = "<script>alert(1)</script> & more"
    restated(
        made.registration,
        lambda s: s["resolved"]["hypotheses"]["cls_needs_no_position"].update(claim=claim),
    )
    page = load_results(made.root, made.name)._repr_html_()
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</td><td>failed</td>" in page
    assert "<script" not in page
    assert "17 of 18 runs finished" in page


def test_results_show_no_effect_while_runs_of_a_fixed_design_are_missing(tmp_path):
    made = maker(tmp_path / "runs")({("cls_position_none", 0): "missing"})
    results = load_results(made.root, made.name)
    assert results.verdicts["hypotheses"]["loss_on_cls_makes_it_useful"]["verdict"]["mean"]
    page = results._repr_html_()
    assert " % [" not in page
    assert "changes by" not in page
    assert "<td>–</td><td>–</td>" in page


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda root: load_results(root / "nowhere", "s"), "nowhere is not there: give another"),
        (lambda root: load_results(root, "s"), "s is no study: it has no registration"),
        (lambda root: run("demos", root=root), "did you mean demo?"),
        (lambda root: run("demo", root=root, only=["x"]), "--only x: the study has no such arm"),
        (lambda root: run("demo", root=root, seeds="9"), "the study has no seed 9"),
        (lambda root: run("demo", root=root, max_concurrent=0), "'--max-concurrent'"),
        (lambda root: run("demo", root=root, witness="no-such"), "no-such"),
        (lambda root: measure(root / "nowhere", "digits"), "nowhere is not there: give a checkp"),
        (lambda root: measure("vit_tiny_patch16_224"), "--data is missing"),
        (lambda root: measure("vit_tiny_patch16_224", "digits", limit=0), "'--limit'"),
        (lambda root: measure("vit_tiny_patch16_224", device="tpu"), "'tpu' is not one of"),
        (lambda root: measure("vit_tiny_patch16_224", out=root), "the folder is not empty"),
    ],
)
def test_what_cannot_be_used_is_an_input_error_of_one_line(tmp_path, call, line):
    (tmp_path / "here").write_text("")
    with pytest.raises(InputError, match=re.escape(line)) as caught:
        call(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.slow
def test_the_example_trains_what_is_missing_and_shows_what_came_out(
    finished, mini, cluster, tmp_path
):
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root, ignore=shutil.ignore_patterns("mlflow*"))
    entry = json.loads((root / "studies/mini/registrations/0001.json").read_text())
    shutil.rmtree(root / "trials" / entry["trials"][-1]["key"])
    text = EXAMPLE.read_text()
    settings = 'STUDY, ROOT = "demo", "runs"'
    assert settings in text
    script = tmp_path / "notebook.py"
    script.write_text(text.replace(settings, f"STUDY, ROOT = {str(mini)!r}, {str(root)!r}"))
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment(RAY_ADDRESS=cluster, PYTHONPATH=str(EXAMPLE.parent.parent)),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "5 of 6 runs are finished: training the other 1" in ran.stdout
    assert "{'none_is_equivalent': 'inconclusive'}" in ran.stdout
    assert re.search(r"^arm +baseline +cls_position_none +loss_on_patches$", ran.stdout, re.M)
    assert re.search(r"^ +layer +value$", ran.stdout, re.M)
