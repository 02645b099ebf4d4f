"""Inside ablations/, imports run one way: spec <- statistics <- verdicts <- study."""

import ast
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2] / "ablations"
BELOW = {
    "statistics": set(),
    "verdicts": {"spec", "statistics"},
    "study": {"library", "spec", "statistics", "verdicts"},
}
"""Of each folder, what else of ablations/ it may import."""


@pytest.mark.parametrize("folder", BELOW)
def test_a_folder_imports_only_what_is_below_it(folder):
    files = sorted((HOME / folder).glob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("ablations."):
                assert module.split(".")[1] in BELOW[folder] | {folder}, f"{path}: {module}"
