"""The import rule of the design, read from the syntax tree."""

import ast
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent.parent
LAYERS = ("trainers", "ablations", "dashboards", "orchestrator")
FORBIDDEN = {
    "trainers": {"ray", "mlflow", "pandas", "plotly", "typer", "rich"},
    "ablations": {"ray", "mlflow", "pandas", "plotly", "typer", "rich"},
    "dashboards": {"ray", "typer", "rich"},
    "orchestrator": set(),
}
RAY = "orchestrator/driver/"
MLFLOW = "orchestrator/tracking/"
DISTRIBUTED = {"trainers/system/world.py"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = [path for layer in LAYERS for path in sorted((HOME / layer).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_layer_imports_only_itself_and_what_is_to_its_left(path):
    name = path.relative_to(HOME).as_posix()
    layer = path.relative_to(HOME).parts[0]
    to_the_right = set(LAYERS[LAYERS.index(layer) + 1 :])
    for module in imported(path):
        top = module.split(".")[0]
        assert top not in to_the_right | FORBIDDEN[layer], f"{name} imports {module}"
        assert top != "ray" or name.startswith(RAY), f"{name} imports {module}"
        assert top != "mlflow" or name.startswith(MLFLOW), f"{name} imports {module}"
        assert not module.startswith("torch.distributed") or name in DISTRIBUTED


def test_there_are_files_in_every_layer():
    assert {path.relative_to(HOME).parts[0] for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_every_module_says_what_it_is(path):
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text()))
