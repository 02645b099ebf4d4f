"""What is printed of verdicts: each reason once, and the interval that decides."""

import io
from collections import Counter

import pytest
import typer
from rich.console import Console

from ablations.verdicts.mutants import EXPLAINED
from dashboards.study import figures, files
from dashboards.tables import derived
from dashboards.tables.derived import judged
from dashboards.tables.reading import read_study
from orchestrator.cli.entry import main
from orchestrator.cli.rendering import show_verdicts
from tests.dashboards.conftest import make_study  # noqa: F401


def shown(made):
    out = io.StringIO()
    study = read_study(*made)
    with pytest.raises(typer.Exit) as ended:
        show_verdicts(study, judged(study), str(made.root), Console(file=out, width=160))
    return out.getvalue(), ended.value.exit_code


def row(text, name):
    [line] = [line for line in text.splitlines() if name in line and "│" in line]
    return line


@pytest.mark.slow
def test_a_report_reads_judges_and_draws_its_study_once(make_study, monkeypatch):  # noqa: F811
    calls = Counter()
    for module, name in (
        (files, "read_study"),
        (derived, "judge"),
        (figures, "learning_curves"),
    ):
        work = getattr(module, name)

        def counted(*arguments, work=work, name=name, **named):
            calls[name] += 1
            return work(*arguments, **named)

        monkeypatch.setattr(module, name, counted)
    made = make_study()
    monkeypatch.setattr("sys.argv", ["dinolab", "report", str(made.folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert (made.folder / "report.html").is_file()
    # Once as it is, and once for each proof that it could come out otherwise.
    assert calls == {"read_study": 1, "judge": 1 + len(EXPLAINED), "learning_curves": 1}


@pytest.mark.slow
def test_a_row_shows_the_interval_that_decides(make_study):  # noqa: F811
    made = make_study()
    text, _ = shown(made)
    hypotheses = judged(read_study(*made))["hypotheses"]
    assert "over the smallest of interest: cls_needs_no_position 6" in " ".join(text.split())
    for name, level, key in (
        ("cls_needs_no_position", "90 %", "interval_equivalence"),
        ("loss_on_cls_makes_it_useful", "95 %", "interval"),
    ):
        low, high = hypotheses[name]["verdict"][key]
        assert f"{level} [{low:+.4f}, {high:+.4f}]" in row(text, name)


@pytest.mark.slow
def test_every_reason_is_printed_once(make_study):  # noqa: F811
    endings = {("baseline", 3): "failed", ("loss_on_patches", 1): "collapsed"}
    made = make_study(endings)
    text, code = shown(made)
    assert code == 3
    hypotheses = judged(read_study(*made))["hypotheses"]
    reasons = [entry["verdict"]["reason"] for entry in hypotheses.values()]
    assert len(set(reasons)) < len(reasons)
    plain = " ".join(text.split())
    for reason in reasons:
        assert plain.count(f": {reason}") == 1
    shared = "loss_on_cls_makes_it_useful, loss_on_cls_makes_it_local: loss_on_patches: collapsed"
    assert shared in plain


def test_a_run_of_an_arm_in_no_hypothesis_is_said_too(make_study):  # noqa: F811
    made = make_study({("loss_on_patches", seed): "collapsed" for seed in (1, 2)}, hypotheses={})
    text, code = shown(made)
    assert code == 0
    why = "target entropy 0.01 is below 0.05"
    assert text.count(f"loss_on_patches: collapsed ({why}), seeds 1, 2") == text.count(why) == 1
