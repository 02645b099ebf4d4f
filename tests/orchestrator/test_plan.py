"""Runs of a plan: what each is called and made of, and how they start from published weights."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from ablations.study.loading import load_study
from orchestrator.cost import COUNTED_ALIKE
from orchestrator.plan import make_plan
from tests.contracts.test_knobs import BASE, CHANGES
from trainers.adapters.backbone_file import SavedBackbone, content_of
from trainers.config import in_steps, override, trial_content
from trainers.data.image_set import open_images
from trainers.errors import InputError
from trainers.model.vit import VisionTransformer
from trainers.runs.version import code_versions
from trainers.training.operations import operations


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "{name: small, recipe: digits_tiny, seeds: 3, arms: [cls_position_none]}"
    )
    return load_study(tmp_path / "study.yaml")


@pytest.fixture
def images(study):
    return open_images(study.base.data, None)


def test_each_run_is_what_its_arm_and_seed_resolve_to_alone_and_called_by_that(study, images):
    base = override(study.base, {"steps": "2 epochs", "optimizer.learning_rate": "0.001 per 256"})
    arms = {"baseline": {}, "longer": {"steps": "3 epochs"}, "same": {}, "wider": {"batch_size": 8}}
    seeds = (0, 7, 2**63 - 1)
    trials = make_plan(replace(study, base=base, arms=arms, seeds=seeds), images).trials
    assert [(trial.arms, trial.seed) for trial in trials] == [
        (named, seed) for seed in seeds for named in (("baseline", "same"), ("longer",), ("wider",))
    ]
    for trial in trials:
        change = {**arms[trial.arms[0]], "seed": trial.seed}
        alone = in_steps(override(base, change), len(images.train))
        assert trial.config == alone
        assert trial.config.model_dump_json() == alone.model_dump_json()
        content = [trial_content(alone), images.digest, dict(code_versions())]
        text = json.dumps(content, sort_keys=True)
        assert trial.key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_what_is_counted_alike_changes_no_operation():
    changes = {name: c for name, c in CHANGES.items() if name.split(".")[0] in COUNTED_ALIKE}
    assert len(changes) > 30
    # What a knob needs to matter may itself be counted.
    needed = {name: value for _, need in changes.values() for name, value in need.items()}
    before = override(BASE, needed)
    after = override(before, {name: value for name, (value, _) in changes.items()})
    assert operations(after, 10) == operations(before, 10)


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
