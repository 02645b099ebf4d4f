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


@pytest.fixture
def run(tmp_path):
    """Makes the folder of an untrained run."""
    from trainers.config import TrainConfig, override
    from trainers.system.world import World
    from trainers.training import checkpoint
    from trainers.training.state import TrainState

    alone = World.alone()

    def made(change):
        config = override(TrainConfig(), {"model.depth": 2, **change})
        folder = tmp_path / "run"
        state = TrainState.fresh(config, alone)
        checkpoint.save(state, config, folder / "attempts" / "0001", alone)
        (folder / "config.json").write_text(config.model_dump_json())
        return folder

    return made
