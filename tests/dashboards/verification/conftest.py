"""A study that was registered, trained and judged as `dinolab run` does it, but for Ray."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ablations.study.loading import load_study
from dashboards.study.files import write_files
from dashboards.tables.chain import read_entry
from dashboards.tables.trials import places_of
from dashboards.verification.study import Verified, verify_study
from orchestrator.plan import Plan, make_plan
from orchestrator.registration import JUDGING, Statement
from orchestrator.witness import witness
from tests.orchestrator.cli.conftest import dinolab as dinolab
from tests.reliability import little
from trainers.data.image_set import ImageSet, open_images
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial, sealed
from trainers.runs.trial import Asking, run_trial
from trainers.runs.version import versions_below
from trainers.system.store import Store, open_store

NAME = little.NAME
SEEDS = 3


def resealed(trial: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a result so that its file is whole."""
    path = trial / "result.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_bytes(sealed(content))


class Root(NamedTuple):
    """A run root with that study."""

    store: Store

    @property
    def folder(self) -> Path:
        """The folder of the run root."""
        assert self.store.local is not None
        return self.store.local

    def key(self, arm: str, seed: int) -> str:
        """The key of a trial."""
        places = {(a, s): key for a, s, key in places_of(read_entry(self.store, NAME))}
        return places[arm, seed]

    def trial(self, arm: str, seed: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / self.key(arm, seed)

    def verified(self) -> Verified:
        """What a verification finds, which changes no file."""
        before = self.files()
        found = verify_study(self.store, NAME, versions_below(JUDGING))
        assert self.files() == before
        return found

    def lines(self) -> list[str]:
        """Its findings."""
        return [finding.line for finding in self.verified().findings]

    def files(self) -> Mapping[str, bytes]:
        """Every file by its key."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


class Little(NamedTuple):
    """Makes plans of the study, and does what `dinolab run` and `amend` do with them."""

    folder: Path

    def plan(self, seeds: int, change: Callable[[str], str] = str) -> tuple[Plan, ImageSet]:
        """The plan of the study with that many seeds, after a change of its file."""
        path = little.write_study(self.folder, seeds)
        arms = "  - cls_position_none\n"
        third = "  - one_crop_more: {augment.local_crops: 3}\n"
        path.write_text(change(path.read_text().replace(arms, arms + third)))
        study = load_study(path)
        images = open_images(study.base.data, self.folder / "index")
        return make_plan(study, images), images

    def train(self, store: Store, seeds: int, change: Callable[[str], str] = str) -> None:
        """Register the study if need be, and train what is missing."""
        plan, images = self.plan(seeds, change)
        registration = Statement(plan, images, store).register().digest
        self.run(store, plan, images, registration)

    def run(self, store: Store, plan: Plan, images: ImageSet, registration: str = "") -> None:
        """Train what is missing of a plan; outside a study where no registration asks for it."""
        for trial in plan.missing(store):
            assert run_trial(
                StoredTrial(store, trial.key),
                trial.config,
                images=images,
                world=little.ALONE,
                reporter=Fanout(),
                asking=Asking(registration=registration),
            )

    def amend(self, store: Store, seeds: int, change: Callable[[str], str] = str) -> None:
        """State the study anew."""
        Statement(*self.plan(seeds, change), store).amend("more is to be seen")


@pytest.fixture(scope="session")
def little_study(tmp_path_factory: pytest.TempPathFactory) -> Little:
    """The study, and its images."""
    return Little(tmp_path_factory.mktemp("little"))


@pytest.fixture(scope="session")
def template(little_study: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run root, judged once."""
    folder = tmp_path_factory.mktemp("template") / "runs"
    store = open_store(folder, make=True)
    little_study.train(store, SEEDS)
    witness(read_entry(store, NAME), store, "echo it is seen:")
    write_files(store, NAME)
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Root:
    """A copy of it, for one test."""
    return Root(open_store(shutil.copytree(template, tmp_path / "runs")))
