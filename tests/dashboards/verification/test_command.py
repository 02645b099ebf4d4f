"""`dinolab verify`: what it prints, and what it ends with."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.dashboards.verification.conftest import NAME, Root

Call = Callable[..., tuple[int, str, str]]


def test_a_study_that_is_whole_ends_with_0_and_a_table(root: Root, dinolab: Call) -> None:
    code, out, _ = dinolab("verify", NAME, "--root", root.folder)
    assert code == 0
    assert "chain of 1, 1 witnessed" in out
    assert "9, 9 with a result" in out
    assert out.rstrip().endswith("nothing is wrong")


def test_a_finding_ends_with_1_and_its_line(root: Root, dinolab: Call) -> None:
    path = root.trial("baseline", 1) / "result.json"
    path.write_text(path.read_text().replace('"step": 4', '"step": 3'))
    key = path.relative_to(root.folder).as_posix()
    code, out, _ = dinolab("verify", root.folder / "studies" / NAME)
    assert code == 1
    assert f"damaged: {key}: it is not as it was written: its digest is another\n" in out
    assert out.rstrip().endswith(": 1 finding")
    code, out, _ = dinolab("verify", NAME, "--root", root.folder, "--json")
    assert code == 1
    (finding,) = json.loads(out)["findings"]
    assert (finding["kind"], finding["where"]) == ("damaged", key)


def test_half_a_character_in_a_name_ends_with_1_and_a_line_for_each(
    root: Root, dinolab: Call
) -> None:
    path = root.folder / "studies" / NAME / "verdicts.json"
    verdicts = json.loads(path.read_text())
    verdicts["hypotheses"]["half \ud800\nof one"] = {
        "verdict": {"looks": [{"seeds": 6}], "seeds": []}
    }
    path.write_text(json.dumps(verdicts))
    code, out, err = dinolab("verify", NAME, "--root", root.folder)
    assert (code, err) == (1, "")
    assert "half \\ud800\\nof one" in out.encode().decode()
    code, out, err = dinolab("verify", NAME, "--root", root.folder, "--json")
    assert (code, err) == (1, "")
    assert {one["kind"] for one in json.loads(out.encode())["findings"]} == {"differs", "deviated"}


def test_bad_input_ends_with_2_and_one_line(root: Root, dinolab: Call) -> None:
    code, out, err = dinolab("verify", "no_such_study", "--root", root.folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    (root.folder / "studies" / NAME / "registrations" / "0001.json").unlink()
    code, out, err = dinolab("verify", NAME, "--root", root.folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "has no registration: there is nothing to verify" in err


@pytest.mark.slow
def test_it_needs_neither_ray_nor_mlflow(root: Root) -> None:
    code = (
        "import sys; sys.modules.update(ray=None, mlflow=None); "
        f"sys.argv = ['dinolab', 'verify', {NAME!r}, '--root', {str(root.folder)!r}]; "
        "from orchestrator.cli.entry import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
