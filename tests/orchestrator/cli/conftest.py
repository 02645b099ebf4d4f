"""The command line in this process."""

import sys

import pytest

from orchestrator.cli import entry as cli


@pytest.fixture
def dinolab(monkeypatch, capsys):
    """Runs `dinolab` in this process: exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dinolab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return call
