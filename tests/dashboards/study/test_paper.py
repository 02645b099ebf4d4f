"""Figures and tables for papers: whole files of the format that was asked for."""

import csv
import io
import shutil

import pytest

from dashboards.study.files import write_one
from dashboards.study.paper import LONGEST, table_file
from dashboards.study.tables import Table, every_table
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from orchestrator.cli.entry import main
from tests.dashboards.conftest import MakeStudy
from trainers.errors import InputError

STARTS = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<svg"}


def cells(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


@pytest.mark.slow
@pytest.mark.parametrize("form", STARTS)
def test_a_figure_is_drawn_for_a_paper(make_study: MakeStudy, form: str) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    made = make_study()
    key = write_one(*made, "verdict_intervals", None, form)
    assert key == f"studies/{made.name}/figures/verdict_intervals.{form}"
    assert (made.root / key).read_bytes().startswith(STARTS[form])


def test_a_table_has_every_digit_and_every_row(make_study: MakeStudy) -> None:
    made = make_study()
    key = write_one(*made, None, "paired_seeds", None)
    columns, *rows = cells((made.root / key).read_bytes())
    assert columns == ["hypothesis", "seed", "arm", "compared with", "difference"]
    entry = judged(read_study(*made))["hypotheses"]["cls_needs_no_position"]
    assert [float(row[4]) for row in rows[:6]] == [
        pair["difference"] for pair in entry["verdict"]["pairs"]
    ]


def test_tables_are_of_verdicts_and_of_all_that_figures_show(make_study: MakeStudy) -> None:
    study = read_study(*make_study())
    tables = every_table(study, judged(study))
    assert {name: len(table.rows) for name, table in tables.items()} == {
        "claims": 0,
        "verdicts": 3,
        "gates": 2,
        "arms": 3,
        "paired_seeds": 18,
        "learning_curves": 3 * (3 + 30),
        "globality_by_layer": 3 * 2 * 2 * 3,
        "collapse_panel": 3 * 3 * 3,
    }
    assert all(len(row) == len(one.columns) for one in tables.values() for row in one.rows)


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "=cmd|' /C calc'!A0"],
)
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    [_, [cell, number]] = cells(table_file(Table(["a", "b"], [[text, -0.5]]), "csv"))
    assert cell == f"'{text}"
    assert number == "-0.5"


def test_what_latex_reads_is_escaped() -> None:
    hostile = r"\input{/etc/passwd} 50% & a_b #1 $x$ ~ ^ → −1" + "\n\nnew"
    written = table_file(Table(["a_b", "p"], [[hostile, 0.0125], ["x", None]]), "latex").decode()
    [row] = [line for line in written.splitlines() if "passwd" in line]
    for part in (r"\textbackslash input\{/etc/passwd\}", r"50\% \& a\_b \#1 \$x\$", r"$\to$ $-$1"):
        assert part in row
    assert row.endswith(r"new & 0.0125 \\")
    assert r"x & -- \\" in written
    assert r"a\_b & p \\" in written
    assert "longtable" not in written
    long = table_file(Table(["a"], [[1]] * (LONGEST + 1)), "latex").decode()
    assert r"\begin{longtable}" in long


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["--figure", "forest"],
            "there is no figure 'forest' (allowed: verdict_intervals,",
        ),
        (["--table", "../x"], "there is no table '../x' (allowed: claims, verdicts,"),
        (["--figure", "a", "--table", "b"], "--figure and --table: give one of them"),
        (["--format", "pdf"], "--format pdf needs --figure or --table"),
        (["--table", "gates", "--format", "png"], "png is of no table (allowed: csv, latex)"),
        (["--figure", "a", "--format", "csv"], "csv is of no figure (allowed: pdf, png, svg)"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(
    make_study: MakeStudy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    said: str,
) -> None:
    made = make_study()
    before = sorted(made.folder.rglob("*"))
    monkeypatch.setattr("sys.argv", ["dinolab", "report", str(made.folder), *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(made.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("browser", "said"),
    [("/nowhere/chromium", "neither is there: install one"), ("/bin/false", "ended at once")],
)
def test_without_a_browser_that_starts_a_figure_is_refused_in_one_line(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, browser: str, said: str
) -> None:
    monkeypatch.setenv("BROWSER_PATH", browser)
    made = make_study()
    with pytest.raises(InputError, match=said):
        write_one(*made, "paired_seeds", None, "svg")
    assert not (made.folder / "figures").exists()
