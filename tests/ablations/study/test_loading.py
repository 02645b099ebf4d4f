"""Study files: what is understood, and what is said about what is not.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import ablations.studies
from ablations.spec import Ablation, Arm, Falls, Holds
from ablations.study.checks import needs_labels
from ablations.study.lint import lint
from ablations.study.loading import load_study
from ablations.study.schema import StudyFile
from trainers.config import diff, override
from trainers.errors import ConfigError, StudyError

STUDIES = Path(next(iter(ablations.studies.__path__)))

GOOD = """
name: small
recipe: digits_tiny
seeds: 8
set: {optimizer.learning_rate: 1e-3, steps: 30}
arms:
  - cls_position_tied
  - narrow: {model.width: 24, model.heads: 2}
hypotheses:
  tied:
    metric: globality/contrast/gyration
    contrast: [cls_position_tied, baseline]
    direction: falls
    smallest_effect: 0.05
gates:
  learns: {arms: [baseline], metric: knn/cls_top1, minus_start: true, at_least: 0.1}
"""


def load(tmp_path, text, **options):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(path, **options)


def problems(tmp_path, text):
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text)
    prefix = f"{tmp_path / 'study.yaml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_a_good_file_becomes_a_study(tmp_path):
    study = load(tmp_path, GOOD)
    assert list(study.arms) == ["baseline", "cls_position_tied", "narrow"]
    assert study.seeds == tuple(range(8))
    assert study.base.optimizer.learning_rate == 1e-3
    config = study.config("narrow", 3)
    assert config.seed == 3
    assert diff(study.base, config) == {"seed": 3, "model.width": 24, "model.heads": 2}
    assert study.hypotheses["tied"].alpha == 0.05


def test_the_data_set_can_be_replaced_and_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = load(tmp_path, GOOD, dataset="elsewhere").base.data.source
    assert source == str(tmp_path / "elsewhere")


def test_without_hypotheses_those_of_the_catalogue_count(tmp_path):
    text = GOOD[: GOOD.index("hypotheses:")]
    study = load(tmp_path, text)
    assert {(one.metric, one.contrast, one.direction) for one in study.hypotheses.values()} == {
        ("globality/contrast/gyration", ("cls_position_tied", "baseline"), "falls"),
        ("shuffled/cls/positional_bias", ("cls_position_tied", "baseline"), "rises"),
    }


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("seeds: 8", "seed: 8", "seed: no such key; did you mean seeds?"),
        ("recipe: digits_tiny", "recipe: digit_tiny", "did you mean digits_tiny?"),
        ("  - cls_position_tied", "  - cls_position_tide", "did you mean cls_position_tied?"),
        ("model.width: 24", "model.widht: 24", "did you mean model.width?"),
        ("model.width: 24", "model.width: wide", "arm narrow: model.width: input should be"),
        ("{model.width: 24, model.heads: 2}", "{model.width: 48}", "is 48 in the base already"),
        ("{model.width: 24, model.heads: 2}", "{}", "arm narrow: changes nothing"),
        ("[cls_position_tied, baseline]", "[cls_tied, baseline]", "no arm 'cls_tied' in this"),
        ("arms: [baseline]", "arms: [base]", "gate learns: no arm 'base' in this study"),
        ("contrast/gyration", "contrast/gyrations", "did you mean globality/contrast/gyration?"),
        ("direction: falls", "direction: drops", "'falls', 'differs' or 'holds' (given: 'drops')"),
        ("smallest_effect: 0.05", "smallest_effect: -1", "greater than 0 (given: -1)"),
        ("smallest_effect: 0.05", "", "hypotheses.tied.smallest_effect: field required"),
        ("seeds: 8", "seeds: 0", "must be 1 or more"),
        ("seeds: 8", "seeds: [1, 1]", "each seed once"),
        ("name: small", "name: ../small", "name: string should match pattern"),
        ("steps: 30", "steps: thirty", "set: steps: must be a whole number of steps"),
        ("metric: knn/cls_top1", "metric: loss/total", "gate learns: loss/total is not measured"),
        ("name: small", "name: small\nname: other", "key 'name' is given twice"),
        ("seeds: 8", "seeds: {", "is not YAML"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_that_says_what_to_do(tmp_path, before, after, line):
    assert before in GOOD
    if "YAML" in line or "twice" in line:
        with pytest.raises(StudyError, match=r"study file .*study\.yaml") as caught:
            load(tmp_path, GOOD.replace(before, after))
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        # A name that is gone is missed wherever it was used: that is a line of its own.
        found = problems(tmp_path, GOOD.replace(before, after))
        assert len([one for one in found if line in one]) == 1
        assert len(found) <= 2


@pytest.mark.parametrize("name", ["train", "mlflow-artifacts", "data"])
def test_a_study_has_no_name_that_its_run_root_uses(tmp_path, name):
    (line,) = problems(tmp_path, GOOD.replace("name: small", f"name: {name}"))
    assert f"{name} is a folder of the run root that holds something else" in line


def test_all_problems_come_at_once(tmp_path):
    text = (
        GOOD.replace("name: small", "name: Small!\ncolour: red")
        .replace("model.width: 24", "model.widht: 24")
        .replace("[cls_position_tied, baseline]", "[cls_tied, baseline]")
        .replace("metric: knn/cls_top1", "metric: knn/cls")
    )
    assert len(problems(tmp_path, text)) == 5


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_mapping_says_what_it_should_be(tmp_path, text):
    with pytest.raises(StudyError, match="must be a mapping"):
        load(tmp_path, text)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        load_study(tmp_path / "nowhere.yaml")


def test_the_price_of_squeezed_images_is_said_beforehand(tmp_path):
    assert not any("squeezed" in line for line in lint(load(tmp_path, GOOD)))
    study = load(tmp_path, GOOD)
    larger = override(study.base, {"data.image_size": 80})
    assert any("squares of 80 pixels" in line for line in lint(replace(study, base=larger)))


def test_metrics_that_need_labels_are_found(tmp_path):
    assert needs_labels(load(tmp_path, GOOD)) == ["learns"]


@pytest.mark.parametrize(
    ("metric", "against", "needs"),
    [
        ("gap/patch", "", True),
        ("linear_probe/cls_top1", "", True),
        ("collapse/information", "knn/register_top1", True),
        ("collapse/information", "linear_probe/patch_top1", True),
        ("collapse/information", "", False),
    ],
)
def test_a_metric_of_any_arm_of_a_contrast_may_need_labels(tmp_path, metric, against, needs):
    text = GOOD.replace("steps: 30", "steps: 30, model.registers: 1").replace(
        "metric: globality/contrast/gyration", f"metric: {metric}\n    metric_against: '{against}'"
    )
    assert ("tied" in needs_labels(load(tmp_path, text))) == needs
    gate = GOOD.replace("metric: knn/cls_top1", f"metric: {metric}")
    assert ("learns" in needs_labels(load(tmp_path, gate))) == (needs and not against)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "metric: globality/contrast/gyration",
            "metric: [a]",
            "hypotheses.tied.metric: input should be a valid string",
        ),
        (
            "metric: globality/contrast/gyration",
            "metric: globality/contrast/gyration\n    metric_against: {a: b}",
            "hypotheses.tied.metric_against: input should be a valid string",
        ),
        (
            "[cls_position_tied, baseline]",
            "[[cls_position_tied], baseline]",
            "hypotheses.tied.contrast: must be [arm, arm it is compared with], [arm] or {arm: we",
        ),
        (
            "[cls_position_tied, baseline]",
            "[{cls_position_tied: 1}, baseline]",
            "hypotheses.tied.contrast: must be [arm, arm it is compared with], [arm] or {arm: we",
        ),
        ("arms: [baseline]", "arms: [[baseline]]", "gates.learns.arms.0: input should be a valid"),
        ("steps: 30}", "steps: 30}\nclaims: {c: {text: t, hypotheses: [[tied]]}}", "claims.c.hyp"),
    ],
)
def test_what_should_be_a_name_and_is_none_is_one_line(tmp_path, before, after, line):
    assert before in GOOD
    (found,) = problems(tmp_path, GOOD.replace(before, after))
    assert found.startswith(line)


@pytest.mark.parametrize("scale", [None, "small"])
@pytest.mark.parametrize(
    ("before", "after", "key", "value"),
    [
        ("steps: 30", "5: 24", "5", "5"),
        ("narrow: {model.width: 24,", "narrow: {5: 24,", "5", "5"),
        ("arms:\n", "factorial: [[baseline, 5: {steps: 5}]]\narms:\n", "5", "5"),
        ("arms:\n", "scales: {5: {}}\narms:\n", "5", "5"),
        ("arms:\n", "scales: {small: {set: {~: 1}}}\narms:\n", "~", "None"),
        ("  tied:", "  0100:", "0100", "100"),
    ],
)
def test_a_key_that_yaml_reads_as_no_text_is_to_be_quoted(
    tmp_path, before, after, key, value, scale
):
    assert before in GOOD
    text = GOOD.replace(before, after)
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text, scale=scale)
    (line,) = str(caught.value).splitlines()
    assert f'key {key} is read as {value}, and keys must be names; quote it: "{key}"' in line
    assert re.search(r"line \d+, column \d+", line)
    assert "not YAML" not in line


def test_an_arm_is_checked_when_it_is_made():
    with pytest.raises(ConfigError, match=r"did you mean model\.cls_position\?"):
        Arm(change={"model.cls_positoin": "tied"})
    assert Arm(change={"steps": 5}).expectations == ()
    for knob, value in {"seed": 1, "data.source": "digits", "data.test_share": 0.5}.items():
        with pytest.raises(ConfigError, match=f"{knob} is not an arm's to change"):
            Arm(change={"steps": 5, knob: value})
    for name in ("", "a/b", "a\nb", "x" * 300):
        with pytest.raises(ConfigError, match="a name must be"):
            Ablation(claim="c", source="s", arms={name: Arm(change={"steps": 5})})
    with pytest.raises(ConfigError, match="a study's own"):
        Ablation(claim="c", source="s", arms={}, base={"data.source": "photographs"})
    both = Arm(change={"steps": 5}, expect=(Falls("a", by=1), Holds("b", by=2)))
    assert [one.direction for one in both.expectations] == ["falls", "holds"]


SHIPPED = [
    (path, scale)
    for path in sorted(STUDIES.glob("*.yaml"))
    for scale in yaml.safe_load(path.read_text()).get("scales", [None])
]


@pytest.mark.parametrize(("path", "scale"), SHIPPED, ids=str)
def test_a_shipped_study_is_good_and_named_like_its_file(path, scale):
    assert load_study(path, scale=scale).name == "-".join([path.stem, *([scale] if scale else [])])


def test_every_claim_of_the_article_is_in_the_study():
    study = load_study(STUDIES / "why_cls_is_global.yaml", scale="small")
    assert {f"claim_{number}" for number in range(1, 7)} <= set(study.claims)
    assert len(study.cells) == 18
    assert len(study.seeds) == 8
    for hypothesis in study.hypotheses.values():
        assert hypothesis.rationale


def test_the_committed_schema_is_that_of_the_study_file():
    committed = json.loads((STUDIES / "study.schema.json").read_text())
    assert committed == StudyFile.model_json_schema()


def test_the_schema_accepts_the_demo_as_the_model_does():
    demo = yaml.safe_load((STUDIES / "demo.yaml").read_text())
    assert set(demo) <= set(StudyFile.model_json_schema()["properties"])


FACTORIAL = """
name: cells
recipe: digits_tiny
seeds: 8
factorial:
  - [baseline, loss_on_patches, half: {loss.patches: 0.5}]
  - [baseline, cls_position_none]
  - [baseline, registers_4]
arms: [narrow: {model.width: 24, model.heads: 2}]
hypotheses:
  position:
    metric: globality/contrast/gyration
    contrast: [cls_position_none, baseline]
    over: cells
    direction: differs
    smallest_effect: 0.05
claims:
  first: {text: it matters, hypotheses: [position]}
"""


def test_a_factorial_becomes_all_its_cells_and_the_baseline_is_the_one_that_changes_nothing(
    tmp_path,
):
    study = load(tmp_path, FACTORIAL)
    assert len(study.cells) == 12
    assert list(study.arms) == [*study.cells, "narrow"]
    assert study.cells["baseline"] == ("baseline",) * 3
    assert study.arms["baseline"] == {}
    assert study.arms["half+cls_position_none+registers_4"] == {
        "loss.patches": 0.5,
        "model.cls_position": "none",
        "model.registers": 4,
    }
    for arm in study.arms:
        assert diff(study.base, study.config(arm, 0)) == study.arms[arm]


def test_a_main_effect_weighs_every_cell_once(tmp_path):
    study = load(tmp_path, FACTORIAL)
    weights = study.hypotheses["position"].weights
    assert set(weights) == set(study.cells)
    for name, weight in weights.items():
        assert weight == (1 / 6 if "cls_position_none" in name else -1 / 6)
    assert study.hypotheses["position"].sides == (
        "cls_position_none, mean of 6 cells",
        "baseline, mean of 6 cells",
    )


def test_a_main_effect_of_two_levels_leaves_the_third_out(tmp_path):
    text = FACTORIAL.replace("[cls_position_none, baseline]", "[loss_on_patches, half]")
    weights = load(tmp_path, text).hypotheses["position"].weights
    assert weights == {
        name: 0.25 if name.startswith("loss_on_patches") else -0.25
        for name in weights
        if name.startswith(("loss_on_patches", "half"))
    }
    assert len(weights) == 8


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("[cls_position_none, baseline]", "[cls_position_none, half]", "no factor of the"),
        ("[baseline, registers_4]", "[registers_4]", "factor 3 must be a list of levels"),
        ("[baseline, registers_4]", "[baseline, registers_5]", "not in the catalogue; did"),
        (
            "[baseline, registers_4]",
            "[baseline, quarter: {loss.patches: 0.25}]",
            "cell half+quarter: two of its levels change loss.patches",
        ),
        ("arms: [narrow", "arms: [registers_4, narrow", "arm registers_4: given twice"),
        (
            "hypotheses: [position]",
            "hypotheses: [positon]",
            "no hypothesis 'positon'; did you mean position?",
        ),
        ("over: cells", "over: rooms", "'arms' or 'cells'"),
    ],
)  # fmt: skip
def test_a_bad_factorial_or_claim_is_a_line_that_says_what_to_do(tmp_path, before, after, line):
    assert before in FACTORIAL
    assert any(line in one for one in problems(tmp_path, FACTORIAL.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "globality/contrast/gyration",
            "globality/contras/gyration",
            "hypothesis position: no metric 'globality/contras/gyration'; did you mean globality/c",
        ),
        (
            "metric: globality/contrast/gyration",
            "metric: loss/total\n    minus_start: true",
            "hypothesis position: loss/total is not measured at step 0; leave minus_start out",
        ),
        (
            "contrast: [cls_position_none, baseline]",
            "contrast: [cls_position_none, baseline]\n    metric_against: knn/cls_top",
            "hypothesis position: no metric 'knn/cls_top'; did you mean knn/cls_top1?",
        ),
        (
            "[cls_position_none, baseline]",
            "{cls_position_none: 1, baseline: -1}",
            "hypothesis position: over: cells needs a contrast [level, level it is compared with]",
        ),
        (
            "[cls_position_none, baseline]",
            "[[cls_position_none], baseline]",
            "hypotheses.position.contrast: must be [arm, arm it is compared with], [arm] or {arm",
        ),
    ],
)
def test_a_comparison_over_cells_is_checked_as_others_are(tmp_path, before, after, line):
    assert before in FACTORIAL
    (found,) = problems(tmp_path, FACTORIAL.replace(before, after))
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("factor", "line"),
    [
        (
            "[baseline, a: {steps: 5}, b: {steps: 6}]",
            None,
        ),
        (
            "[baseline, {a: {steps: 5}, b: {steps: 6}}]",
            "a level of factor 3 must be one `name: {knob: value}`, got a and b; make each level",
        ),
        (
            "[baseline, {}]",
            "a level of factor 3 must be one `name: {knob: value}`, got an empty mapping; make",
        ),
        (
            "[baseline, a: {steps: 5}, a: {steps: 6}]",
            "level a of factor 3 is given twice, or the name of the base; every level of every",
        ),
        (
            "[baseline, baseline: {steps: 5}]",
            "level baseline of factor 3 is given twice, or the name of the base",
        ),
        (
            "[baseline, half: {steps: 5}]",
            "level half of factor 3 is given twice, or the name of the base",
        ),
        (
            "[baseline, half+cls_position_none: {steps: 5}]",
            "level 'half+cls_position_none' of factor 3 must have a name without +",
        ),
        ("[baseline, '': {steps: 5}]", "level '' of factor 3 must have a name without +"),
    ],
)  # fmt: skip
def test_no_two_cells_have_the_same_name(tmp_path, factor, line):
    text = FACTORIAL.replace("[baseline, registers_4]", factor)
    if line is None:
        assert len(load(tmp_path, text).cells) == 18
    else:
        (found,) = problems(tmp_path, text)
        assert found.startswith(f"factorial: {line}")


def test_a_level_that_fits_no_form_is_one_line(tmp_path):
    text = FACTORIAL.replace("[baseline, registers_4]", "[baseline, [registers_4]]")
    (found,) = problems(tmp_path, text)
    assert found.startswith("factorial.2.1: must be a catalogue name or `name: {knob: value}`")


def test_each_arm_of_an_ablation_of_several_is_a_level(tmp_path):
    (tmp_path / "sizes.py").write_text(
        "from ablations.spec import Ablation, Arm\n"
        "ABLATION = Ablation(claim='c', source='s', arms={"
        "'sizes': Arm(change={'model.width': 96}, confounds=('wider',)), "
        "'deep': Arm(change={'model.depth': 4}, confounds=('deeper',))})\n"
    )
    text = FACTORIAL.replace("[baseline, registers_4]", "[baseline, sizes]")
    study = load(tmp_path, text, ablations=[tmp_path / "sizes.py"])
    assert len(study.cells) == 18
    assert study.arms["half+deep"] == {"loss.patches": 0.5, "model.depth": 4}
    assert study.confounds["half+deep"] == ("deeper",)


SCALED = (
    GOOD
    + """
scales:
  small: {seeds: 6, set: {steps: 40}}
  large: {recipe: dino_vit_small_16, dataset: /data/pictures, set: {optimizer.beta1: 0.8}}
"""
)


def test_a_scale_changes_what_it_names_and_nothing_else(tmp_path):
    small = load(tmp_path, SCALED, scale="small")
    assert (small.name, len(small.seeds), small.base.steps) == ("small-small", 6, 40)
    assert small.base.optimizer.learning_rate == 1e-3
    large = load(
        tmp_path,
        SCALED.replace("narrow: {model.width: 24, model.heads: 2}", "x: {steps: 5}"),
        scale="large",
    )
    assert (large.recipe, large.base.steps) == ("dino_vit_small_16", 30)
    assert large.base.data.source == "/data/pictures"
    assert large.base.optimizer.beta1 == 0.8


def test_common_knobs_of_a_wrong_shape_are_one_line_at_a_scale_too(tmp_path):
    text = SCALED.replace("set: {optimizer.learning_rate: 1e-3, steps: 30}", "set: [steps]")
    with pytest.raises(StudyError, match="set: input should be an object") as caught:
        load(tmp_path, text, scale="small")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "scale", "line"),
    [
        (SCALED, None, "none was given; give --scale small or --scale large"),
        (SCALED, "smal", "'smal' is none of them; did you mean small?"),
        (GOOD, "small", "has no scales"),
        (
            SCALED.replace("seeds: 6", "sedes: 6"),
            "large",
            "sedes: no such key; did you mean seeds?",
        ),
    ],
)
def test_a_wrong_scale_is_one_line(tmp_path, text, scale, line):
    with pytest.raises(StudyError) as caught:
        load(tmp_path, text, scale=scale)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


NAMED = """
name: shapes
recipe: dino_vit_small_16
dataset: digits
seeds: 2
set: {model.timm: vit_tiny_patch16_224, evaluation.globality_layers: [1]}
arms:
  - registers: {model.timm: deit_tiny_distilled_patch16_224}
  - shallow: {model.timm: vit_small_patch16_224, model.depth: 6}
"""


def test_base_and_arms_may_take_their_shape_from_timm(tmp_path):
    pytest.importorskip("timm")
    study = load(tmp_path, NAMED)
    assert study.base.model.width == 192
    assert study.arms["registers"] == {"model.registers": 1}
    assert study.arms["shallow"] == {"model.width": 384, "model.heads": 6, "model.depth": 6}
    for arm, change in study.arms.items():
        assert diff(study.base, study.config(arm, study.base.seed)) == change


def test_a_shape_that_timm_does_not_have_or_the_base_has_is_one_line(tmp_path):
    pytest.importorskip("timm")
    text = NAMED.replace("deit_tiny_distilled_patch16_224", "vit_tiny_patch16_384")
    (line,) = problems(tmp_path, text.replace("vit_small_patch16_224", "vit_base_patch16_224"))
    assert line.startswith("arm registers: model.timm vit_tiny_patch16_384 is the shape of the")
    (line,) = problems(tmp_path, NAMED.replace("vit_small_patch16_224", "resnet50"))
    assert line.startswith("arm shallow: model.timm resnet50: ResNet is no ViT")
    first, *_ = problems(tmp_path, NAMED.replace("vit_tiny_patch16_224", "vit_tiny_patch16_22"))
    assert first.startswith("set: model.timm vit_tiny_patch16_22: timm has no such model")


def test_workers_that_are_given_are_checked_as_those_of_the_file(tmp_path):
    assert load(tmp_path, GOOD, workers=(2, 8)).resources.most_workers == 8
    strict = GOOD + "resources: {placement_strategy: STRICT_PACK}\n"
    assert load(tmp_path, strict, workers=(2, 0)).resources.workers == 2
    with pytest.raises(StudyError, match=r"--workers: .*PACK or SPREAD, and not"):
        load(tmp_path, strict, workers=(2, 8))
    with pytest.raises(StudyError, match="batch_size 32 does not divide by 3 workers"):
        load(tmp_path, GOOD, workers=(3, 8))
    assert problems(tmp_path, GOOD + "resources: {workers: 4, most_workers: 2}\n") == [
        "resources: most_workers 2 is less than workers 4"
    ]
