"""Study files as people get them wrong: one or several short lines, at once, and nothing else."""

import time
from pathlib import Path

import pytest
import yaml

import ablations.studies
from ablations.study.lint import lint
from ablations.study.loading import load_study
from trainers.config.explain import LONGEST_LINE
from trainers.errors import InputError

DEMO = (Path(next(iter(ablations.studies.__path__))) / "demo.yaml").read_text()

LONG = "x" * 10_000

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)

LEVELS = "".join(
    f"  - [baseline, {', '.join(f'f{i}l{j}: {{steps: {j + 1}}}' for j in range(9))}]\n"
    for i in range(12)
)


def with_set(text):
    return DEMO + f"set: {text}\n"


def with_arm(text):
    return DEMO.replace("  - cls_position_none", f"  - {text}\n  - cls_position_none")


def with_seeds(text):
    return DEMO.replace("seeds: 8", f"seeds: {text}")


def named(text):
    return DEMO.replace("name: demo", f"name: {text}")


HYPOTHESIS = "{{metric: {}, contrast: {}, direction: rises, smallest_effect: 0.1{}}}"


def expecting(metric, contrast="[cls_position_none]", more=""):
    stated = f"\nhypotheses:\n  h: {HYPOTHESIS.format(metric, contrast, more)}\n"
    return DEMO[: DEMO.index("\nhypotheses:")] + stated


# text: part of a line that is to be said
MUTANTS = {
    "a billion seeds": (with_seeds("1000000000"), "100,000 at most"),
    "more seeds than int64": (with_seeds("1" + "0" * 30), "100,000 at most"),
    "no seeds": (with_seeds("0"), "must be 1 or more"),
    "huge seeds": (with_seeds(f"[{2**63}, {2**70}]"), "seeds.0: input should be less than"),
    "a seed of 5,000 digits": (with_seeds("9" * 5000), "a number of 5000 characters"),
    "a range as text": (with_seeds("0-7"), "seeds: must be how many, or a list of them"),
    "seeds as minutes": (with_seeds("1:40"), "(given: '1:40')"),
    "seeds yes": (with_seeds("yes"), "(given: 'yes')"),
    "seeds true": (with_seeds("true"), "(given: True)"),
    "half a seed": (with_seeds(".5"), "(given: 0.5)"),
    "seeds of a date": (with_seeds("[2026-11-25]"), "(given: '2026-11-25')"),
    "too many runs": (with_seeds("90000"), "4 arms × 90000 seeds are 360,000 runs, 100,000 is"),
    "nested 3,000 deep": (with_set("[" * 3000 + "]" * 3000), "nests more than 30 deep"),
    "nested 40 deep": (with_set("[" * 40 + "]" * 40), "nests more than 30 deep"),
    "an alias bomb": (BOMB + DEMO, "holds more than 100,000 values"),
    "an alias of itself": (with_seeds("&all [*all]"), "holds more than 100,000 values"),
    "a megabyte": (DEMO + "# " + "x" * 10**6, "more than 1,000,000 characters"),
    "a merge": (DEMO + "<<: {seeds: 3}\n", "<<: no such key"),
    "a tag": (with_seeds("!!python/object:os.system {}"), "could not determine a constructor"),
    "a number that is none": (with_seeds("!!int abc"), "is not YAML"),
    "a list as a key": (DEMO + "? [a]\n: 1\n", "keys must be names"),
    "a width of millions": (with_arm("wide: {model.width: 3000000}"), "less than or equal to"),
    "a billion blocks": (with_set("{model.depth: 1000000000}"), "less than or equal to 1000 "),
    "networks of terabytes": (
        with_set("{model.width: 19998, model.depth: 1000}"), "4,096 is the most",
    ),
    "crops of a wall": (with_set("{augment.global_size: 100000}"), "less than or equal to 4096"),
    "a million patches": (with_set("{augment.global_size: 4096}"), "65,536 is the most"),
    "images of a wall": (with_set("{data.image_size: 1000000}"), "less than or equal to 4096"),
    "prototypes": (with_set("{head.prototypes: 1000000000000}"), "less than or equal to"),
    "a batch of a billion": (with_set("{batch_size: 1000000000}"), "less than or equal to"),
    "more parts than images": (with_arm("a: {compute.accumulate: 64}"), "must be 1..32"),
    "more parts than a worker's images": (
        with_arm("a: {compute.accumulate: 16}") + "resources: {workers: 4}\n",
        "arm a: compute.accumulate 16 is more than the 8 images of each of 4 workers",
    ),
    "an arm whose batch does not divide": (
        with_arm("a: {batch_size: 30}") + "resources: {workers: 4}\n",
        "arm a: batch_size 30 does not divide by 4 workers",
    ),
    "a billion workers": (DEMO + "resources: {workers: 1000000000}\n", "less than or equal"),
    "a factorial of billions": (DEMO + "factorial:\n" + LEVELS, "cells, 1,000 is the most"),
    "a long name of a study": (named("x" * 300), "at most 100 characters"),
    "a number for a name": (named("0100"), "(given: 100: put it in quotes)"),
    "a long name of an arm": (with_arm("x" * 300 + ": {steps: 5}"), "1 to 100 printable"),
    "an arm without a name": (with_arm("'': {steps: 5}"), "1 to 100 printable"),
    "an arm called space": (with_arm("' ': {steps: 5}"), "1 to 100 printable"),
    "an arm over two lines": (with_arm('"a\\nb": {steps: 5}'), "arm a\\nb: a name must be"),
    "an arm that colours": (with_arm('"\\e[31m": {steps: 5}'), "1 to 100 printable"),
    "an arm that is a path": (with_arm("../a: {steps: 5}"), "without / and \\"),
    "a long name of a hypothesis": (
        DEMO.replace("none_is_equivalent:", "x" * 300 + ":"), "1 to 100 printable",
    ),
    "a path of a gate": (DEMO.replace("baseline_learns:", "a/b:"), "gate 'a/b': a name must be"),
    "a long arm of no catalogue": (with_arm(LONG), "not in the catalogue"),
    "a long value": (with_set(f"{{steps: {LONG}}}"), "set: steps: must be a whole number"),
    "a long knob": (with_set(f"{{{LONG[:1000]}: 5}}"), "no such knob"),
    "a long key": (DEMO + f"{LONG[:1000]}: 5\n", "no such key"),
    "a long metric": (expecting(LONG), "no metric"),
    "a long recipe": (DEMO.replace("digits_tiny", LONG), "no such recipe"),
    "many long values": (with_seeds(f"[{', '.join([LONG] * 9)}]"), "valid integer"),
    "the baseline last": (
        DEMO.replace("  - loss_on_patches\n", "  - loss_on_patches\n  - baseline\n"),
        "arm baseline: is there anyway",
    ),
    "a baseline that changes": (with_arm("baseline: {steps: 5}"), "given twice, or the name of"),
    "an arm of nothing": (with_arm("a:"), "must be a catalogue name or `name: {knob: value}`"),
    "an arm of numbers": (with_arm("a: 5"), "must be a catalogue name or `name: {knob: value}`"),
    "an arm's own seed": (with_arm("a: {seed: 5}"), "seed is not an arm's to change: `seeds`"),
    "an arm's own data": (
        with_arm("a: {data.source: photographs}"), "data.source is not an arm's to change",
    ),
    "a level's own data": (
        DEMO + "factorial: [[baseline, b: {data.source: photographs}]]\n",
        "cell b: data.source is not an arm's to change",
    ),
    "common data": (with_set("{data.source: photographs}"), "set: data.source is not to be set"),
    "a common seed": (with_set("{seed: 5}"), "set: seed is not to be set: `seeds`"),
    "a register's metric": (
        expecting("knn/register_top1"),
        "hypothesis h: knn/register_top1 needs a register (model.registers 1 or more), which is "
        "not so in cls_position_none",
    ),
    "a loss that is not there": (expecting("loss/masked"), "needs loss.masked above 0"),
    "a metric of another arm": (
        expecting("loss/patches", "[loss_on_patches, baseline]"),
        "loss/patches needs loss.patches above 0, which is not so in baseline",
    ),
    "a gate on a register": (
        DEMO.replace("metric: knn/cls_top1", "metric: globality/register/entropy"),
        "gate baseline_learns: globality/register/entropy needs a register",
    ),
    "a metric against nothing": (
        expecting("loss/total", more=", metric_against: loss/cls"), "metric_against is the metric",
    ),
    "a site that is not there": (
        with_arm("a: {loss.further: [[nosuch, 1.0]]}"), "arm a: loss.further: nosuch is no file",
    ),
    "a common site that is not there": (
        with_set("{loss.further: [[nosuch, 1.0]]}"), "set: loss.further: nosuch is no file",
    ),
    "a site twice": (
        with_arm("a: {loss.further: [[mine, 1.0], [mine, 2.0]]}"),
        "arm a: loss: further gives 'mine' more than one weight",
    ),
    "an alpha of almost nothing": (
        expecting("knn/cls_top1", more=", alpha: 1.0e-300"), "greater than or equal to 0.000001",
    ),
    "an alpha that no number of seeds reaches": (
        expecting("knn/cls_top1", more=", direction: holds, alpha: 1.0e-20").replace(
            "direction: rises, ", ""
        ),
        "greater than or equal to 0.000001",
    ),
    "a mask of words": (with_set("{model.cls: perhaps}"), "valid boolean (given: 'perhaps')"),
    "an infinite rate": (with_set("{optimizer.learning_rate: .inf}"), "learning_rate"),
    "a rate beyond numbers": (with_set("{optimizer.learning_rate: 1e999}"), "learning_rate"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MUTANTS.values(), ids=list(MUTANTS))
def test_a_wrong_study_is_short_lines_at_once(text, said, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        lint(load_study(path))
    assert time.process_time() - began < 2
    lines = str(caught.value).splitlines()
    assert [line for line in lines if said in line]
    assert len(lines) < 20
    for line in lines:
        assert line.isprintable()
        assert len(line) < LONGEST_LINE + len(str(path)) + 20


def loaded(text, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study(path)


@pytest.mark.parametrize(
    "key", ["hypotheses", "gates", "claims", "set", "dataset", "factorial", "resources", "scales"]
)
def test_a_key_with_nothing_below_it_is_left_out(key, tmp_path):
    stated = yaml.safe_load(DEMO)
    stated.pop(key, None)
    without = loaded(yaml.safe_dump(stated), tmp_path)
    assert loaded(yaml.safe_dump(stated | {key: None}), tmp_path) == without


@pytest.mark.parametrize("direction", ["rises", "holds"])
def test_the_smallest_alpha_is_planned_for_at_once(direction, tmp_path):
    text = expecting("knn/cls_top1", more=", alpha: 1.0e-6").replace("rises", direction)
    began = time.process_time()
    assert "is above alpha 1e-06" in lint(loaded(text, tmp_path))[0]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("written", ["baseline", "baseline: {}", "baseline:"])
def test_the_baseline_may_stand_first(written, tmp_path):
    assert loaded(with_arm(written), tmp_path) == loaded(DEMO, tmp_path)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0100", 100), ("1_0", 10), ("1e1", 10), ("0x10", 16), ("+8", 8)]
)
def test_a_number_is_read_as_people_write_it(text, seeds, tmp_path):
    assert loaded(with_seeds(text), tmp_path).seeds == tuple(range(seeds))


@pytest.mark.parametrize("name", ["no", "on", "2026-01-01", "1:40", "yes"])
def test_a_word_is_a_name_whatever_older_yaml_makes_of_it(name, tmp_path):
    text = expecting("globality/cls/gyration", f"[{name}, baseline]")
    text = text.replace("\nhypotheses:", f"\n  - {name}: {{steps: 5}}\nhypotheses:")
    study = loaded(text, tmp_path)
    assert study.hypotheses["h"].contrast == (name, "baseline")
    assert study.arms[name] == {"steps": 5}


@pytest.mark.parametrize("written", ["no", "off", "false", "No"])
def test_a_knob_that_is_on_or_off_may_be_written_so(written, tmp_path):
    study = loaded(with_arm(f"a: {{evaluation.probes: {written}}}"), tmp_path)
    assert study.arms["a"] == {"evaluation.probes": False}
    assert study.config("a", 0).evaluation.probes is False


def test_without_a_data_set_the_recipe_names_it(tmp_path):
    stated = yaml.safe_load(DEMO) | {"recipe": "photographs_tiny"}
    del stated["dataset"]
    assert loaded(yaml.safe_dump(stated), tmp_path).base.data.source == "photographs"
