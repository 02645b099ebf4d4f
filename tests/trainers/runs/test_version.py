"""Which edits of the code make other runs, and which do not."""

import ast
import functools
import shutil
from pathlib import Path

import pytest

import trainers
from trainers.config import TrainConfig
from trainers.runs import version
from trainers.runs.trial import trial_key
from trainers.runs.version import code_versions, differing, versions_in

HOME = Path(trainers.__file__).parent.parent
EXECUTED = (
    "trainers.data.augment", "trainers.evaluation.evaluate", "trainers.globality.functionals",
    "trainers.model.vit", "trainers.training.loop", "trainers.training.step",
)  # fmt: skip
NOT_EXECUTED = (
    "trainers/__main__.py", "trainers/adapters/hugging_face_models.py", "trainers/data/ingest.py",
    "trainers/adapters/pretrained.py", "trainers/data/sources/folder.py",
    "trainers/data/sources/hugging_face.py", "trainers/metrics.py", "trainers/runs/saved_run.py",
)  # fmt: skip


READ_ONCE = functools.cache(version._read)


@pytest.fixture(autouse=True)
def _files_that_a_test_leaves_alone_are_read_once(monkeypatch):
    monkeypatch.setattr(version, "_read", READ_ONCE)


@pytest.fixture
def home(tmp_path):
    """A copy of the sources that a test may edit."""
    pattern = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HOME / "trainers", tmp_path / "trainers", ignore=pattern)
    return tmp_path


def changed(home):
    return differing(code_versions(), versions_in(home))


def edit(home, name, rewrite):
    """Rewrite the source of a module by a function of text."""
    path = home / name if name.endswith(".py") else home / (name.replace(".", "/") + ".py")
    before = path.read_text()
    path.write_text(rewrite(before))
    assert path.read_text() != before


class First(ast.NodeTransformer):
    """Replaces the first node in a function for which `how` gives another one."""

    def __init__(self, how):
        self.how, self.inside, self.done = how, False, False

    def visit(self, node):
        if self.done:
            return node
        if isinstance(node, ast.FunctionDef):
            self.inside = True
        found = self.how(node) if self.inside else None
        if found is not None:
            self.done = True
            return found
        return self.generic_visit(node)


def other_number(node):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return ast.Constant(node.value + 1)
    return None


def other_operator(node):
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Add | ast.Div):
        return ast.BinOp(node.left, ast.Sub(), node.right)
    return None


def other_branch(node):
    if isinstance(node, ast.If):
        return ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    return None


@pytest.mark.slow
def test_comments_and_formatting_of_every_module_make_no_other_runs(home):
    for path in (home / "trainers").rglob("*.py"):
        # What unparsing leaves out: comments, empty lines, quotes, brackets, forms of numbers.
        path.write_text("# Nothing.\n\n\n" + ast.unparse(ast.parse(path.read_text())))
    assert changed(home) == []


def test_docstrings_and_annotations_of_every_module_make_no_other_runs(home):
    class Bare(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            self.generic_visit(node)
            node.body = [ast.Expr(ast.Constant("Other words.")), *node.body]
            if not node.decorator_list:
                node.returns = ast.Constant("Other")
                for one in node.args.args:
                    one.annotation = ast.Name("object")
            return node

    for path in (home / "trainers").rglob("*.py"):
        tree = Bare().visit(ast.parse(path.read_text()))
        path.write_text('"""Another module."""\n' + ast.unparse(ast.fix_missing_locations(tree)))
    assert changed(home) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trainers.training.step", "import", "from typing import Any as Anything\nimport"),
        (
            "trainers.training.step", "import",
            "import typing\nif typing.TYPE_CHECKING:\n    import trainers.adapters.pretrained\n"
            "import",
        ),
        ("trainers.config.method", '"weight of the same on one patch', '"the weight on one patch'),
        ("trainers.config.train", 'unit="optimiser steps, or', 'unit="updates, or'),
        ("trainers.system.world", "choose a multiple of", "take a multiple of"),
        ("trainers.config.change", "no such knob", "no knob of this name"),
        ("trainers.config.size", "choose a number", "take a number"),
        ("trainers.config.explain", 'f"; did you mean', 'f"; do you mean'),
        ("trainers.config.listing", " | ", " or "),
        ("trainers.errors", "} more\"", "} others\""),
        ("trainers.runs.console", '"loss/total", ', ""),
        ("trainers.evaluation.knn", "k-NN accuracy", "accuracy by k-NN"),
        ("trainers.method.sites.dense", '"every patch, matched', '"each patch, matched'),
    ],
)  # fmt: skip
def test_types_meanings_and_messages_make_no_other_runs(home, name, old, new):
    edit(home, name, lambda text: text.replace(old, new, 1))
    assert changed(home) == []


@pytest.mark.parametrize("name", NOT_EXECUTED)
def test_code_that_no_run_executes_makes_no_other_runs(home, name):
    edit(home, name, lambda text: text + "\nOTHER = 1\n")
    assert changed(home) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [other_number, other_operator, other_branch])
@pytest.mark.parametrize("name", EXECUTED)
def test_a_number_an_operator_and_a_branch_make_other_runs(home, name, how):
    first = First(how)

    def rewrite(text):
        return ast.unparse(ast.fix_missing_locations(first.visit(ast.parse(text))))

    edit(home, name, rewrite)
    assert first.done
    assert changed(home) == [name]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trainers.config.train", "600,", "601,"),
        ("trainers.config.method", "    cls: float", "    new: float = 1.0\n    cls: float"),
        ("trainers.config.method", "ge=0", "ge=1"),
        ("trainers.config.data", '"digits",', '"photographs",'),
        ("trainers.training.loop", "import Batch, update", "import Batch, Batch as update"),
        ("trainers.grid", "Grid = ", "OTHER = 1\nGrid = "),
        ("trainers.method.sites.dense", "    meaning =", "    weight = 2\n    meaning ="),
        ("trainers.config.change", "brief(f", "shown(f"),
    ],
)
def test_knobs_defaults_and_bindings_make_other_runs(home, name, old, new):
    edit(home, name, lambda text: text.replace(old, new, 1))
    assert changed(home) == [name]


def test_a_new_module_that_is_imported_makes_other_runs_and_one_that_is_not_does_not(home):
    (home / "trainers" / "method" / "novel.py").write_text("SHIFT = 1\n")
    assert changed(home) == []
    edit(home, "trainers.method.losses", lambda text: text + "\ndef late():\n"
         "    from trainers.method import novel\n    return novel\n")  # fmt: skip
    assert changed(home) == ["trainers.method.losses", "trainers.method.novel"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inside", "searching"),
    [
        ("", "import pkgutil\nimport trainers.method.kinds\n"),
        ("", "import pkgutil\nfrom trainers.method import kinds\n"),
        ("", "from importlib import import_module\nFOUND = import_module('trainers.method.kinds')"),
        ("", "import importlib\ndef find(name):\n"
             "    return importlib.import_module(f'trainers.method.kinds.{name}')\n"),
        ("import pkgutil\nFOUND = list(pkgutil.iter_modules(__path__))\n",
         "from trainers.method.kinds import FOUND\n"),
    ],
)  # fmt: skip
def test_every_module_of_a_package_that_is_searched_at_run_time_counts(home, inside, searching):
    kinds = home / "trainers" / "method" / "kinds"
    kinds.mkdir()
    (kinds / "__init__.py").write_text(inside)
    (kinds / "one.py").write_text("KIND = 1\n")
    edit(home, "trainers.method.losses", lambda text: text + searching)
    before = versions_in(home)
    assert "trainers.method.kinds.one" in before
    (kinds / "two.py").write_text("from trainers.adapters import timm_models\n")
    found = differing(before, versions_in(home))
    assert {"trainers.method.kinds.two", "trainers.adapters.timm_models"} <= set(found)


def test_a_package_that_is_searched_elsewhere_does_not_count():
    assert "trainers.config.recipe" not in code_versions()


def test_other_code_is_another_key(monkeypatch):
    key = trial_key(TrainConfig(), "data")
    assert trial_key(TrainConfig(), "data") == key
    other = {**code_versions(), "trainers.grid": "0" * 12}
    monkeypatch.setattr("trainers.runs.trial.code_versions", lambda: other)
    assert trial_key(TrainConfig(), "data") != key
