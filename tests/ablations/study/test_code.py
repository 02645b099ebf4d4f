"""A study file is data: opening one runs no code that is not named beside it."""

import pytest

from ablations.study.loading import load_study
from tests.ablations.study.test_loading import GOOD, SCALED, load
from trainers.errors import StudyError


class TestARecipeThatIsCode:
    @pytest.fixture
    def recipe(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from pathlib import Path\n"
            "from ablations.recipes.digits_tiny import RECIPE\n"
            "Path(__file__).with_name('it ran').touch()\n"
        )
        return tmp_path / "mine.py"

    @pytest.mark.parametrize("named", [(), ("other.py",), ("deeper",)])
    @pytest.mark.parametrize("scale", [None, "large"])
    def test_runs_in_no_study_that_it_is_not_named_beside(self, tmp_path, recipe, named, scale):
        (tmp_path / "other.py").write_text("ABLATION = None")
        (tmp_path / "deeper").mkdir()
        (tmp_path / "deeper" / "third.py").write_text("ABLATION = None")
        text = SCALED.replace("recipe: dino_vit_small_16", f"recipe: {recipe}")
        if scale is None:
            text = GOOD.replace("recipe: digits_tiny", f"recipe: {recipe}")
        paths = [tmp_path / one for one in named]
        with pytest.raises(StudyError) as caught:
            load(tmp_path, text, scale=scale, ablations=paths)
        assert str(caught.value) == (
            f"{tmp_path / 'study.yaml'}: recipe '{recipe}' is code, which a study runs only where "
            f"it is named: add --ablations {recipe}"
        )
        assert not (tmp_path / "it ran").exists()

    @pytest.mark.parametrize("name", [".py", "link.py", "link.json", ".json"])
    def test_runs_under_no_other_name_either(self, tmp_path, recipe, name):
        if name.startswith("link"):
            (tmp_path / "payload.txt").write_text(recipe.read_text())
            (tmp_path / name).symlink_to("payload.txt")
        else:
            recipe.rename(tmp_path / name)
        with pytest.raises(StudyError):
            load(tmp_path, GOOD.replace("recipe: digits_tiny", f"recipe: {tmp_path / name}"))
        assert not (tmp_path / "it ran").exists()

    @pytest.mark.parametrize("named", [".", "mine.py"])
    def test_is_that_of_a_study_beside_which_it_or_its_folder_is_named(
        self, tmp_path, recipe, named
    ):
        text = GOOD.replace("recipe: digits_tiny", f"recipe: {recipe}")
        found = load(tmp_path, text, ablations=[tmp_path / named])
        assert found.base == load(tmp_path, GOOD).base
        assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system"])
def test_a_study_file_is_data_whatever_its_tags_ask_for(tmp_path, tag):
    path = tmp_path / "study.yaml"
    path.write_text(GOOD.replace("seeds: 8", f"seeds: {tag} ['touch {tmp_path}/ran']"))
    with pytest.raises(StudyError, match="python") as caught:
        load_study(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
