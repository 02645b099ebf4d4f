"""Ablations of one's own: found by name beside the catalogue's, and one line when they are not."""

import re
import sys
from pathlib import Path

import pytest

from ablations.library import ENTRY_POINTS, library
from ablations.spec import Ablation, Arm
from ablations.study.arms import ablation
from ablations.study.loading import load_study
from ablations.study.schema import StudyFile
from ablations.study.where import packaged_studies, question_of
from ablations.template import write_ablation, write_study
from tests.ablations import checks
from trainers.config import TrainConfig, override
from trainers.errors import ConfigError, InputError, StudyError

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "my_ablation"

WIDE = """
from ablations.spec import Ablation, Arm, Holds
ABLATION = Ablation(claim="c", source="s", arms={"wide": Arm(change={"model.width": 96},
    expect=Holds("globality/contrast/gyration", by=0.05), confounds=("more parameters",))})
"""


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def refused(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    (line,) = str(caught.value).splitlines()
    return line


class TestPaths:
    def test_a_file_and_a_folder_of_files_are_found_by_name(self, tmp_path):
        file = write(tmp_path, "wide", WIDE)
        write(tmp_path, "_helper", "raise ValueError")
        for path in (file, tmp_path):
            known = library([path])
            assert known["wide"].origin == str(file)
            assert known["cls_position_tied"].origin == "catalogue"
            assert "_helper" not in known
            assert ablation("wide", [path]).arms["wide"].change == {"model.width": 96}

    def test_nothing_is_written_beside_a_file(self, tmp_path):
        library([write(tmp_path, "wide", WIDE)])["wide"].load()
        assert [path.name for path in tmp_path.iterdir()] == ["wide.py"]

    def test_one_file_given_twice_is_one(self, tmp_path):
        file = write(tmp_path, "wide", WIDE)
        assert library([file, tmp_path])["wide"].load().claim == "c"

    def test_a_name_of_the_catalogue_is_refused(self, tmp_path):
        file = write(tmp_path, "cls_position_tied", WIDE)
        line = refused(library, [file])
        assert line.startswith("ablation cls_position_tied is in the catalogue and in ablation")
        assert str(file) in line

    def test_a_name_given_by_two_paths_is_refused(self, tmp_path):
        files = [write(tmp_path / name, "wide", WIDE) for name in ("a", "b")]
        line = refused(library, files)
        assert all(str(file) in line for file in files)

    @pytest.mark.parametrize(
        ("name", "what"), [("nowhere", "is no .py file"), ("empty", "holds no .py file")]
    )
    def test_a_path_without_ablations_is_refused(self, tmp_path, name, what):
        (tmp_path / "empty").mkdir()
        assert what in refused(library, [tmp_path / name])

    def test_a_broken_file_that_is_not_asked_for_does_no_harm(self, tmp_path):
        write(tmp_path, "wide", WIDE)
        write(tmp_path, "broken", "1/0")
        assert ablation("wide", [tmp_path]).claim == "c"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nimport nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (line 2)"),
        ("ABLATION = (", "SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 1)"),
        ("x = 1", "must set ABLATION to an Ablation, got None"),
        (WIDE.replace("model.width", "model.widht"), "no such knob; did you mean model.width?"),
        (WIDE.replace("96", "'wide'"), "arm wide: model.width: input should be a valid integer"),
        (WIDE.replace('"wide"', '"broad"'), "one arm must be named wide like the file"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(tmp_path, text, line):
    file = write(tmp_path, "wide", text)
    said = refused(ablation, "wide", [file])
    assert said.startswith(f"ablation file {file}")
    assert line in said


class TestPackages:
    @pytest.fixture
    def installed(self, tmp_path, monkeypatch):
        """A package whose ablations are declared as an entry point, as pip would install it."""
        site = tmp_path / "site"
        site.mkdir()
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        write(site / "my_lab", "__init__", "")
        write(site / "my_lab", "wide", WIDE)

        def declare(value):
            notes = site / "my_lab-1.0.dist-info"
            notes.mkdir()
            (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
            (notes / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmine = {value}\n")

        yield declare
        for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
            del sys.modules[name]

    @pytest.mark.parametrize("value", ["my_lab", "my_lab.wide"])
    def test_a_package_or_module_is_found(self, installed, value):
        installed(value)
        assert ablation("wide").claim == "c"
        assert library()["wide"].origin == "package my-lab"

    def test_a_package_that_cannot_be_imported_is_one_line(self, installed):
        installed("my_lab.nowhere")
        line = refused(library)
        assert line.startswith("ablations of package my-lab: module my_lab.nowhere cannot be")
        assert "ModuleNotFoundError" in line

    def test_its_names_must_differ_from_those_of_files(self, installed, tmp_path):
        installed("my_lab")
        file = write(tmp_path / "files", "wide", WIDE)
        assert "is in module my_lab.wide and in ablation file" in refused(library, [file])


class TestBase:
    NEEDY = Ablation(
        claim="c", source="s",
        base={"model.patch_position": "rotary", "model.cls_position": "none"},
        arms={"turned": Arm(change={"model.cls_position": "rotary"})},
    )  # fmt: skip

    def test_what_a_base_lacks_is_named(self):
        wanted = {"model.patch_position": "rotary", "model.cls_position": "none"}
        assert self.NEEDY.missing(TrainConfig()) == wanted
        assert self.NEEDY.missing(override(TrainConfig(), wanted)) == {}

    def test_a_base_that_is_none_and_a_value_that_no_knob_may_have_are_refused(self):
        with pytest.raises(ConfigError, match=r"^base: model.widht: no such knob"):
            Ablation(claim="c", source="s", base={"model.widht": 3}, arms={})
        with pytest.raises(ConfigError, match=r"^base: model.cls: input should be a valid boolean"):
            Ablation(claim="c", source="s", base={"model.cls": "perhaps"}, arms={})
        for value in (0, 1.5, float("inf"), object()):
            with pytest.raises(ConfigError, match=r"^arm a: steps: [^\n]+$"):
                Ablation(claim="c", source="s", arms={"a": Arm(change={"steps": value})})

    def test_an_arm_may_fit_another_recipe_than_the_default_one(self):
        patches = Ablation(
            claim="c", source="s", base={"augment.local_size": 98, "model.cls": "yes"},
            arms={"a": Arm(change={"model.patch_size": 14, "evaluation.globality_layers": [8]})},
        )  # fmt: skip
        assert patches.missing(TrainConfig()) == {"augment.local_size": 98}

    def test_an_arm_that_does_not_fit_the_base_of_a_study_is_refused_there(self, tmp_path):
        (tmp_path / "turned.py").write_text(
            "from ablations.spec import Ablation, Arm\nABLATION = Ablation(claim='c', source='s', "
            "arms={'turned': Arm(change={'model.cls_position': 'rotary'})})\n"
        )
        path = tmp_path / "study.yaml"
        path.write_text("name: a\nrecipe: digits_tiny\nseeds: 6\narms: [turned]\n")
        line = refused(load_study, path, ablations=[tmp_path / "turned.py"])
        assert "arm turned: model: cls_position rotary needs" in line

    def test_a_study_with_another_base_is_refused_and_one_with_it_is_not(self, tmp_path):
        path = tmp_path / "study.yaml"
        text = "name: a\nrecipe: digits_tiny\nseeds: 6\narms: [sinkhorn]\n"
        path.write_text(text)
        line = refused(load_study, path)
        assert "arm sinkhorn: needs targets.kind 'centering' in the base, which has" in line
        path.write_text(text + "set: {targets.kind: centering}\n")
        assert load_study(path).arms["sinkhorn"] == {"targets.kind": "sinkhorn"}


class TestStudy:
    def test_it_uses_files_and_keeps_their_change_and_confounds(self):
        study = load_study(EXAMPLE / "study.yaml", ablations=[EXAMPLE])
        change = {"model.cls_position": "tied", "model.cls_tied_patch": [3, 3]}
        assert study.to_json()["arms"]["cls_in_the_far_corner"] == change
        assert study.confounds["cls_in_the_far_corner"]
        assert study.confounds["baseline"] == ()
        assert {h.contrast for h in study.hypotheses.values()} == {
            ("cls_position_tied", "baseline"),
            ("cls_in_the_far_corner", "baseline"),
        }

    def test_without_them_the_name_is_unknown_and_the_option_is_named(self):
        with pytest.raises(StudyError, match=r"not in the catalogue.*--ablations PATH"):
            load_study(EXAMPLE / "study.yaml")


def test_the_example_passes_what_every_ablation_must(tmp_path):
    checks.check(library([EXAMPLE])["cls_in_the_far_corner"], tmp_path)


class TestNew:
    def test_a_new_file_passes_what_every_ablation_must(self, tmp_path):
        path = write_ablation("my_first", tmp_path / "mine")
        assert path == tmp_path / "mine" / "my_first.py"
        checks.check(library([path])["my_first"], tmp_path / "runs")

    def test_a_file_that_is_there_stays(self, tmp_path):
        path = write(tmp_path, "mine", "x = 1")
        assert "is there already" in refused(write_ablation, "mine", tmp_path)
        assert path.read_text() == "x = 1"

    @pytest.mark.parametrize(
        "name", ["Mine", "my-own", "2nd", "../mine", "", "baseline", "cls_position_tied"]
    )
    def test_a_bad_name_is_refused_and_nothing_is_written(self, tmp_path, name):
        assert refused(write_ablation, name, tmp_path).startswith(f"new ablation {name}: ")
        assert list(tmp_path.iterdir()) == []

    def test_every_expectation_that_it_names_is_imported(self, tmp_path):
        text = write_ablation("mine", tmp_path).read_text()
        for kind in ("Rises", "Falls", "Differs"):
            path = write(tmp_path / kind, "mine", text.replace("Holds(", f"{kind}("))
            (expected,) = library([path])["mine"].load().arms["mine"].expectations
            assert expected.direction == kind.lower()


class TestNewStudy:
    def test_it_loads_as_it_was_written(self, tmp_path):
        study = load_study(write_study("mine", tmp_path / "studies"))
        assert study.name == "mine"
        assert list(study.arms) == ["baseline", "registers_4", "one_register"]
        assert set(study.hypotheses) == {"one_register_changes_nothing", "four_registers_change_it"}

    @pytest.mark.slow
    def test_its_arms_train_and_report_what_its_hypotheses_and_gates_ask_for(self, tmp_path):
        study = load_study(write_study("mine", tmp_path))
        reported = {
            arm: checks.run(override(checks.TINY, change), tmp_path / arm).records
            for arm, change in study.arms.items()
        }
        for hypothesis in study.hypotheses.values():
            for arm in hypothesis.weights:
                for _, metrics in (reported[arm][0], reported[arm][-1]):
                    assert hypothesis.metric_of(arm) in metrics
        for gate in study.gates.values():
            for arm in gate.arms:
                assert gate.metric in reported[arm][-1][1]

    def test_what_is_commented_out_loads_too(self, tmp_path):
        path = write_study("mine", tmp_path)
        head, tail = path.read_text().split("# Where that is not enough (remove the #):\n#\n")
        path.write_text(head + "".join(line[2:] for line in tail.splitlines(keepends=True)))
        study = load_study(path, scale="small")
        assert len(study.seeds) == 7
        assert study.claims["registers"].rule == "all"
        assert "loss_on_patches+cls_position_none" in study.arms

    def test_every_field_of_a_study_file_stands_in_it(self, tmp_path):
        text = write_study("mine", tmp_path).read_text()
        for field in StudyFile.model_fields:
            assert re.search(rf"^(# )?{field}:", text, re.MULTILINE), field

    def test_a_packaged_study_has_the_name_of_its_file(self):
        scales = {"why_cls_is_global": "small"}
        for name, path in packaged_studies().items():
            study = load_study(path, scale=scales.get(name))
            assert study.name.removesuffix("-small") == name
            assert question_of(path).endswith(("?", "."))
