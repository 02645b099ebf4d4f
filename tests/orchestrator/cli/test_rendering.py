"""What is printed is printed as it stands, whatever brackets it holds."""

import pytest
from PIL import Image
from rich.progress import TextColumn
from rich.table import Table

from orchestrator.cli.rendering import make_console, open_with_progress
from orchestrator.driver.progress import StudyProgress
from trainers.config import DataConfig

ODD = "a[/b] [bold]c :dog: [1]"


@pytest.fixture
def console(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    return make_console()


def test_names_in_lines_tables_and_titles_keep_their_brackets(console, capsys):
    console.print(ODD)
    table = Table(ODD, title=ODD)
    table.add_row(ODD)
    console.print(table)
    assert capsys.readouterr().out.count(ODD) == 4


def test_a_study_with_brackets_is_planned(dinolab, mini, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(mini.read_text().replace("none_is_equivalent", "none[b]"))
    code, out, err = dinolab("plan", study, "--tflops", 1, "--root", tmp_path / "r[" / "b]")
    assert code == 0, err
    assert "│ none[b] " in out
    assert "note: none[b]: can never be supported" in out


def test_what_was_skipped_names_a_folder_with_brackets(console, capsys, tmp_path):
    folder = tmp_path / "a[" / "b]"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / f"{number}.png")
    (folder / "broken[b].png").write_bytes((folder / "0.png").read_bytes()[:40])
    open_with_progress(DataConfig(source=str(folder)), tmp_path / "runs", console, live=False)
    assert f"skipped 1 of 5 files in {folder}:" in capsys.readouterr().out


def test_progress_shows_arms_with_brackets(console, capsys, monkeypatch):
    monkeypatch.setattr("orchestrator.driver.progress._PLAIN_EVERY_S", -1.0)
    plain = StudyProgress(console, name="mini", trials=1, live=False)
    plain.moved(ODD, 1, 2, {})
    assert capsys.readouterr().out == f"running: {ODD} 1/2\n"
    live = StudyProgress(console, name="mini", trials=1, live=True)
    live.moved(ODD, 1, 2, {})
    shown = [column.render(task).plain for task in live.progress.tasks
             for column in live.progress.columns if type(column) is TextColumn]  # fmt: skip
    assert f"  {ODD}" in shown
