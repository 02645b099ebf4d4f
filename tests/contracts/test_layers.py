"""The import rules: between the top folders, between the folders in each, between files."""

import ast
import pkgutil
import re
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
ROOMS = {
    "trainers": (
        {"errors.py", "grid.py"},
        {"config"},
        {"system"},
        {"randomness"},
        {"data"},
        {"model"},
        {"method"},
        {"globality"},
        {"evaluation"},
        {"training"},
        {"runs"},
        {"adapters"},
        {"metrics.py"},
        {"reported.py"},
        {"__main__.py"},
    ),
    "ablations": (
        {"contrast.py", "crossing.py"},
        {"hypothesis.py"},
        {"recipes", "spec.py"},
        {"design.py", "statistics", "studies"},
        {"catalogue", "registration.py"},
        {"library.py", "changes.py", "stated.py"},
        {"verdicts"},
        {"study"},
        {"template.py"},
    ),
    "dashboards": (
        {"names.py", "page.py"},
        {"tables"},
        {"figures"},
        {"definitions"},
        {"measurement", "papers", "study"},
        {"verification"},
    ),
    "orchestrator": (
        {"interrupt.py", "resources.py", "retry.py", "cost.py", "schedule.py", "garbage.py"},
        {"references.py"},
        {"deploy"},
        {"plan.py"},
        {"registration.py", "witness.py", "pilot.py", "submission.py"},
        {"tracking"},
        {"driver"},
        {"cli"},
        {"__main__.py", "library.py"},
    ),
}
"""the folders and files of each top folder: one imports itself and what stands above it"""
LONGEST = 400
RAY = "orchestrator/driver/"
MLFLOW = "orchestrator/tracking/"
DISTRIBUTED = {f"trainers/system/{name}.py" for name in ("gradients", "sharded_files", "world")}


def imported(path):
    """The modules that a file imports; `from package import name` gives package.name too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_files(path):
    """The files of the four folders that a file imports; a package is its __init__.py."""
    for module in imported(path):
        place = HOME.joinpath(*module.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file in SET_OF_FILES and file != path:
                yield file


def room(path):
    """The file's top folder, and the number and name of the folder or file in it that holds it."""
    top, name, *_ = path.relative_to(HOME).parts
    (number,) = (n for n, names in enumerate(ROOMS[top]) if name in names)
    return top, number, name


FILES = [path for layer in LAYERS for path in sorted((HOME / layer).rglob("*.py"))]
SET_OF_FILES = set(FILES)
IN_ROOMS = [
    path for path in FILES if len(path.relative_to(HOME).parts) > 2 or path.stem != "__init__"
]


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_dotted_name_in_backticks_is_there(path):
    for name in re.findall(rf"`((?:{'|'.join(LAYERS)})(?:\.\w+)+)`", path.read_text()):
        pkgutil.resolve_name(name)


def test_every_folder_and_file_of_a_top_folder_has_its_place_in_the_order():
    for layer, order in ROOMS.items():
        listed = [name for names in order for name in names]
        assert sorted(listed) == sorted({
            path.relative_to(HOME).parts[1] for path in IN_ROOMS if HOME / layer in path.parents
        })  # fmt: skip


@pytest.mark.parametrize("path", IN_ROOMS, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_folder_imports_only_itself_and_what_stands_above_it_in_the_order(path):
    top, number, name = room(path)
    for other in imported_files(path):
        if other in IN_ROOMS and room(other)[0] == top:
            _, its_number, its_name = room(other)
            assert its_name == name or its_number < number, (
                f"{path.relative_to(HOME)} ({name}) imports {other.relative_to(HOME)}, and "
                f"{its_name} does not stand above {name} in ROOMS"
            )


def test_no_two_files_import_each_other_in_a_circle():
    imports = {path: set(imported_files(path)) - {path} for path in FILES}
    while free := [path for path, others in imports.items() if not others & imports.keys()]:
        for path in free:
            del imports[path]
    assert not imports, sorted(path.relative_to(HOME).as_posix() for path in imports)


def test_a_file_of_more_than_400_lines_says_why():
    files = [*FILES, *(HOME / "benchmarks").glob("*.py"), *(HOME / "tests").rglob("*.py")]
    for path in files:
        text = path.read_text()
        if len(text.splitlines()) > LONGEST:
            reason = f"Over {LONGEST} lines: "
            assert reason in (ast.get_docstring(ast.parse(text)) or ""), path
