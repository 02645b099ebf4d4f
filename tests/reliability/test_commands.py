"""The command `dinolab run` on Ray, beside another one, and on what is damaged."""

import os
import signal

import pytest

from tests.orchestrator.conftest import dinolab, start
from tests.reliability.little import NAME, files, in_a_process, measured, write_study, wrong
from tests.reliability.test_damage import flipped

SEEDS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("DINOLAB_SOAK" not in os.environ, reason="minutes of Ray: make soak"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root in which the study has ended, without Ray."""
    root = tmp_path_factory.mktemp("finished") / "root"
    process = in_a_process(root, SEEDS)
    process.join()
    assert process.exitcode == 0
    return root


def test_two_commands_share_a_root_and_one_is_killed(finished, tmp_path):
    study, root = write_study(tmp_path, SEEDS), tmp_path / "root"
    with start("run", study, "--root", root) as stays, start("run", study, "--root", root) as dies:
        for line in dies.stdout:
            if line.startswith("["):
                break
        dies.send_signal(signal.SIGKILL)
        said = stays.stdout.read()
    assert (dies.returncode, stays.returncode) == (-signal.SIGKILL, 0), said
    assert "Traceback" not in said
    assert not wrong(root, measured(finished))


def test_the_command_names_what_is_damaged_and_trains_only_that_again(finished, tmp_path):
    study, root = write_study(tmp_path, SEEDS), tmp_path / "root"
    finished_files = files(finished)
    results = sorted(key for key in finished_files if key.endswith("/result.json"))
    for key, content in finished_files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"" if key == results[0] else content)
    (root / results[1]).unlink()
    saved = root / results[1].replace("result.json", "attempts/0001/checkpoint-4.safetensors")
    saved.write_bytes(flipped(saved.read_bytes()))
    registration = root / "studies" / NAME / "registrations" / "0001.json"
    stated = registration.read_bytes()

    registration.write_bytes(stated[: len(stated) // 2])
    code, output = dinolab("run", study, "--root", root)
    assert code == 2
    (line,) = (line for line in output.splitlines() if "is damaged" in line)
    assert f"{registration} is damaged" in line
    assert "restore the file, or remove it" in line
    assert "Traceback" not in output

    registration.write_bytes(stated)
    code, output = dinolab("run", study, "--root", root)
    assert code == 0, output
    first, second = (line for line in output.splitlines() if "is damaged" in line)
    assert first.startswith(f"{root / results[0]} is damaged: not a JSON object")
    assert "resumed at step 1; " in second
    assert f"{saved} is damaged: its digest is another; the run goes on" in second
    assert f"{len(results) - 2} of {len(results)} runs are finished: training the other 2" in output
    assert "Traceback" not in output
    assert not wrong(root, measured(finished))
