"""Paths of options are made absolute where the user is."""

from pathlib import Path

from orchestrator.cli.options import absolute_root
from orchestrator.cli.rendering import make_console


def test_a_ray_job_writes_below_home_and_not_into_its_temporary_copy(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    console = make_console()
    assert absolute_root(Path("runs"), console) == tmp_path / "runs"
    assert f"run root {tmp_path / 'runs'}" in capsys.readouterr().out
    assert absolute_root(Path("/shared"), console) == Path("/shared")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.chdir(tmp_path)
    assert absolute_root(Path("here"), console) == tmp_path / "here"
