"""Two studies or two measured models side by side: facts of each, and no verdict on both."""

import json

import pytest

from tests.dashboards.conftest import HYPOTHESES, maker
from tests.dashboards.kept_maps import keep, kept_maps
from tests.registered import restated
from trainers.runs.maps import content_of


@pytest.fixture
def two(tmp_path):
    """Two studies of a root, of which the second asks for a larger effect, and one thing less."""
    make = maker(tmp_path / "runs")
    first = make(name="first")
    hypotheses = dict(list(HYPOTHESES.items())[:2])
    some = "loss_on_cls_makes_it_useful"
    hypotheses[some] = {**hypotheses[some], "smallest_effect": 0.5}
    second = maker(tmp_path / "again")(name="second", hypotheses=hypotheses)
    first.store.put("studies/second/registrations/0001.json", second.registration.read_bytes())
    return first


def test_two_studies_are_shown_with_what_differs_and_their_own_effects(dinolab, two):
    code, out, err = dinolab("compare", "first", "second", "--root", two.root)
    assert (code, err) == (0, "")
    assert "hypothesis loss_on_cls_makes_it_useful: smallest_effect 0.05 -> 0.5" in out
    assert "hypothesis loss_on_cls_makes_it_local left out" in out
    code, text, _ = dinolab("compare", "first", "second", "--root", two.root, "--json")
    found = json.loads(text)
    assert (code, list(found["hypotheses"])) == (0, list(HYPOTHESES))
    one, other = found["hypotheses"]["loss_on_cls_makes_it_useful"]
    assert one["mean"] == other["mean"] == pytest.approx(-0.12, abs=0.02)
    assert one["seeds"] == len(one["interval"]) * 3
    assert found["hypotheses"]["loss_on_cls_makes_it_local"][1] is None


def test_a_study_with_the_same_statement_differs_in_nothing(dinolab, two):
    assert "A and B state the same" in dinolab("compare", "first", "first", "--root", two.root)[1]


def test_a_study_with_missing_runs_shows_no_effect(dinolab, tmp_path):
    made = maker(tmp_path / "runs")({("baseline", 0): "missing"})
    _, text, _ = dinolab("compare", made.name, made.name, "--root", made.root, "--json")
    assert all(pair == [None, None] for pair in json.loads(text)["hypotheses"].values())
    out = dinolab("compare", made.name, made.name, "--root", made.root)[1]
    assert out.count(f"{made.name}: runs are missing") == 1
    assert "SUPPORTED" not in out


def test_names_that_are_hostile_are_shown_as_they_are(dinolab, two):
    name = "[red]x\x1b[2J\n" + "n" * 300

    def rename(stated):
        hypotheses = stated["resolved"]["hypotheses"]
        hypotheses[name] = hypotheses.pop("loss_on_cls_makes_it_local")

    restated(two.registration, rename)
    code, out, _ = dinolab("compare", "first", "second", "--root", two.root)
    assert code == 0
    assert r"[red]x\x1b[2J\nnnn" in out
    assert "\x1b" not in out


def measured(folder, **changes):
    folder.mkdir()
    metrics = {
        "globality/cls/gyration": 0.5,
        "globality/cls/entropy": None,
        "reach/cls/gyration": 1,
    }
    summary = {
        "model": {"name": folder.name, "blocks": 12},
        "images": {"measured": 128},
        "notes": ["a"],
        "metrics": {**metrics, **changes},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_two_measured_models_are_shown_with_their_differences(dinolab, tmp_path):
    a, b = measured(tmp_path / "a"), measured(tmp_path / "b", **{"globality/cls/gyration": 0.75})
    code, out, err = dinolab("compare", a, b)
    assert (code, err) == (0, "")
    assert "  model.name a -> b\n" in out
    row = next(line for line in out.splitlines() if "globality/cls/gyration" in line)
    assert [cell.strip() for cell in row.split("│")][2:5] == ["0.500", "0.750", "0.250"]
    found = json.loads(dinolab("compare", a, b, "--json")[1])
    assert found["metrics"]["globality/cls/gyration"] == [0.5, 0.75]
    assert found["metrics"]["globality/cls/entropy"] == [None, None]


def test_json_has_no_number_that_json_has_not(dinolab, tmp_path):
    a = measured(tmp_path / "a", **{"globality/cls/gyration": float("nan")})
    b = measured(tmp_path / "b", **{"globality/cls/gyration": -float("inf")})
    text = dinolab("compare", a, b, "--json")[1]
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["metrics"]["globality/cls/gyration"] == [None, None]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": {"a": "x"}}'])
def test_what_cannot_be_compared_is_one_line(dinolab, tmp_path, content):
    a, b = measured(tmp_path / "a"), measured(tmp_path / "b")
    (b / "summary.json").write_text(content)
    root = tmp_path / "runs"
    root.mkdir()
    for second, line in ((b, "b/summary.json is damaged"), ("s", "is a measured model and s is")):
        code, out, err = dinolab("compare", a, second, "--root", root)
        assert (code, out) == (2, "")
        assert line in err
        assert len(err.splitlines()) == 1
    code, _, err = dinolab("compare", "s", "t", "--root", root)
    assert (code, len(err.splitlines())) == (2, 1)


def test_pictures_of_two_studies_are_written_whole_or_not_at_all(dinolab, two, tmp_path):
    file = tmp_path / "pictures" / "both.png"
    asked = ("compare", "first", "second", "--root", two.root, "--pictures", file)
    code, out, err = dinolab(*asked)
    assert (code, out) == (2, "")
    assert "no run of first has kept maps" in err
    assert len(err.splitlines()) == 1
    assert not file.parent.exists()
    for arm in ("baseline", "loss_on_patches"):
        keep(two.root / two.trial(arm, 0).folder, {600: kept_maps(1)})
    code, _, err = dinolab(*asked)
    assert (code, err) == (0, "")
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("file", "said"), [("a.gif", "(allowed: .png, .pdf, .svg)"), ("a", "(allowed: .png,")]
)
def test_pictures_of_another_form_are_refused(dinolab, two, file, said):
    code, _, err = dinolab("compare", "first", "second", "--root", two.root, "--pictures", file)
    assert (code, len(err.splitlines())) == (2, 1)
    assert said in err


def test_pictures_of_measured_models_are_written(dinolab, tmp_path):
    a, b = measured(tmp_path / "a"), measured(tmp_path / "b")
    file = tmp_path / "c.png"
    code, out, err = dinolab("compare", a, b, "--pictures", file)
    assert (code, out) == (2, "")
    assert "a has no maps.safetensors" in err
    assert not file.exists()
    for folder, maps in ((a, kept_maps(1)), (b, kept_maps(2))):
        (folder / "maps.safetensors").write_bytes(content_of(maps))
    assert dinolab("compare", a, b, "--pictures", file)[0] == 0
    assert file.read_bytes().startswith(b"\x89PNG")
