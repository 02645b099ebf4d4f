"""What options come to: paths where the user is, images as large as they are measured."""

from types import SimpleNamespace

import pytest

from orchestrator.cli.measure_options import images_wanted
from orchestrator.cli.options import absolute_root
from orchestrator.cli.rendering import make_console
from trainers.config import DataConfig


def test_a_ray_job_writes_below_home_and_not_into_its_temporary_copy(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    console = make_console()
    assert absolute_root("runs", console) == str(tmp_path / "runs")
    assert f"run root {tmp_path / 'runs'}" in capsys.readouterr().out
    assert absolute_root("/shared", console) == "/shared"
    assert absolute_root("s3://bucket/runs", console) == "s3://bucket/runs"
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.chdir(tmp_path)
    assert absolute_root("here", console) == str(tmp_path / "here")


@pytest.mark.parametrize(("own", "size", "wanted"), [(0, 24, 0), (16, 24, 24), (32, 24, 32)])
def test_a_run_is_measured_on_images_as_large_as_it_saw_or_larger(own, size, wanted):
    data = DataConfig(source="digits", image_size=own)
    model = SimpleNamespace(trained_on=data, image_size=16, grid=lambda side: (side, side))
    found = images_wanted(model, None, size)
    assert (found.source, found.image_size) == ("digits", wanted)
