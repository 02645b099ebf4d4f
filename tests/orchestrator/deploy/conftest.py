"""Files as the command prints them, and programs that stand for those of a cluster."""

from pathlib import Path

import pytest
import yaml

from orchestrator.deploy.rendering import rendered
from orchestrator.deploy.values import Kind, values_of

AWKWARD = """/shared/it's "all" $(touch made) ${HOME} `id` #1 & \\ é"""
"""a folder in whose name a shell, YAML and Kubernetes each see something of theirs"""

LEAST = {
    Kind.RAY_ON_PREMISES: {"hosts": ["10.0.0.1", "10.0.0.2"]},
    Kind.RAY_AWS: {"machine_image": "ami-0123456789abcdef0", "root": "s3://bucket/runs"},
    Kind.SKYPILOT: {"root": "s3://bucket/runs"},
}
"""what must be given to a kind"""


def written(kind, **given):
    """The file of a kind, with what it needs and what is given."""
    return rendered(values_of(Kind(kind), LEAST.get(Kind(kind), {}) | given))


def documents(kind, **given):
    """The same, its documents of YAML read."""
    return list(yaml.safe_load_all(written(kind, **given)))


@pytest.fixture
def programs(tmp_path):
    """Writes a program into a folder for the front of PATH, and gives the folder."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        return folder

    return write
