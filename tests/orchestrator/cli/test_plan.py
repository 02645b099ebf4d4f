"""`dinolab plan`: everything that a run would do, and nothing trained."""

import re
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent.parent / "examples" / "my_ablation"


@pytest.mark.slow
def test_a_plan_shows_everything_and_trains_nothing(dinolab, mini, tmp_path):
    code, out, _ = dinolab("plan", mini, "--root", tmp_path / "runs")
    assert code == 0
    for part in ("model.cls_position: learned → none", "loss.cls: 1.0 → 0.0", "parameters",
                 "6 runs, 0 finished, 6 to train: about", "none_is_equivalent"):  # fmt: skip
        assert part in out
    assert not (tmp_path / "runs" / "studies").exists()


@pytest.mark.slow
def test_a_plan_in_epochs_is_estimated_run_by_run(dinolab, mini, tmp_path):
    text = mini.read_text().replace("steps: 24, evaluation.every: 12, log_every: 4",
                                    "steps: 2 epochs, evaluation.every: 1 epoch")  # fmt: skip
    minutes = {}
    for longer in ("3 epochs", "9000 epochs"):
        study = tmp_path / "epochs.yaml"
        study.write_text(text.replace("- loss_on_patches", f"- longer: {{steps: {longer}}}"))
        code, out, err = dinolab("plan", study, "--root", tmp_path / "runs")
        assert (code, err) == (0, "")
        minutes[longer] = float(re.search(r"6 to train: about ([\d.]+) min", out)[1])
    assert minutes["9000 epochs"] > 10 * minutes["3 epochs"]


@pytest.mark.slow
def test_a_plan_says_what_else_differs_and_what_the_seeds_can_decide(dinolab, mini, tmp_path):
    text = mini.read_text().replace("seeds: 2", "seeds: 8")
    (tmp_path / "eight.yaml").write_text(text.replace("name: mini", "name: eight"))
    code, out, _ = dinolab("plan", tmp_path / "eight.yaml", "--root", tmp_path / "runs")
    assert code == 0
    for part in ("-48 parameters", "[CLS] starts less far from 0", "loss on: 1 cls → 1 patches",
                 "training FLOPs a step: ×", "GFLOPs a step",
                 "power: the chance of `supported`", "8 seeds",
                 "none_is_equivalent: can never be supported"):  # fmt: skip
        assert part in out


@pytest.mark.slow
def test_the_example_of_an_own_ablation_is_planned_as_its_readme_says(
    dinolab, tmp_path, monkeypatch
):
    line = next(
        line
        for line in (EXAMPLE / "README.md").read_text().splitlines()
        if line.startswith("dinolab plan")
    )
    monkeypatch.chdir(EXAMPLE.parent.parent)
    code, out, err = dinolab(*line.split()[1:], "--root", tmp_path / "runs")
    assert code == 0, err
    for part in ("model.cls_tied_patch: [0, 0] → [3, 3]", "cls_position_tied",
                 "the position of that patch is trained", "24 runs, 0 finished"):  # fmt: skip
        assert part in out
