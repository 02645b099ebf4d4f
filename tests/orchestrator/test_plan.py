"""A plan of runs that start from published weights."""

from dataclasses import replace

import pytest
import torch

from ablations.study.loading import load_study
from orchestrator.plan import make_plan
from trainers.adapters.backbone_file import SavedBackbone, content_of
from trainers.data.image_set import open_images
from trainers.errors import InputError
from trainers.model.vit import VisionTransformer


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "{name: small, recipe: digits_tiny, seeds: 3, arms: [cls_position_none]}"
    )
    return load_study(tmp_path / "study.yaml")


@pytest.fixture
def images(study):
    return open_images(study.base.data, None)


@pytest.mark.slow
def test_the_runs_of_an_arm_that_starts_from_weights_are_pinned_to_what_they_are(
    study, images, tmp_path
):
    model = study.base.model
    arms = {"baseline": {}, "one": {"model.weights": str(tmp_path / "one.safetensors")}}
    arms["two"] = {"model.weights": str(tmp_path / "two.safetensors")}

    def written(name, factor):
        backbone = VisionTransformer(model, study.base.augment.global_size)
        for parameter in backbone.parameters():
            torch.nn.init.constant_(parameter, factor)
        saved = SavedBackbone(
            backbone=backbone, image_size=16, seed=0, fixed_patch_place=None, origin="made"
        )
        (tmp_path / f"{name}.safetensors").write_bytes(content_of(saved))

    def plan():
        trials = make_plan(replace(study, arms=arms), images).trials
        assert all("@sha256:" in t.config.model.weights for t in trials if t.arms != ("baseline",))
        return {arm: trial.key for trial in trials if trial.seed == 0 for arm in trial.arms}

    written("one", 0.1)
    written("two", 0.1)
    same = plan()
    assert same["one"] == same["two"] != same["baseline"]
    written("two", 0.2)
    assert plan() == {**same, "two": plan()["two"]}
    assert plan()["two"] != same["two"]
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(InputError, match="is not there: give timm:NAME"):
        plan()
