"""A worker keeps the values of its trial beside the result when it ends."""

import pyarrow.parquet as pq
import pytest

from dashboards.tables.values import VALUES
from orchestrator.driver import worker
from orchestrator.driver.output import Output
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images
from trainers.runs.reporters import Fanout
from trainers.runs.trial import Planned, trial_key
from trainers.runs.version import code_versions
from trainers.system.store import open_store
from trainers.system.world import World, chosen_device


@pytest.mark.slow
def test_a_trial_that_has_ended_has_its_values_beside_it(tmp_path):
    root, cache = tmp_path / "root", tmp_path / "cache"
    open_store(root, make=True)
    config = override(
        recipe("digits_tiny"),
        {
            "steps": 2, "batch_size": 8, "evaluation.causal_images": 0, "evaluation.probes": False,
            "evaluation.globality_images": 4, "evaluation.globality_probe_images": 4,
        },
    )  # fmt: skip
    digest = open_images(config.data, cache).digest
    key = trial_key(config, digest)
    assignment = worker.Assignment(
        root=str(root),
        key=key,
        driver="",
        registration="f" * 64,
        over=(),
        config=config.model_dump_json(),
        planned=Planned(key=key, digest=digest, code=dict(code_versions())),
        cache=str(cache),
    )
    worker._train(
        assignment, World.alone(chosen_device("cpu")), Fanout(), 1, Output(node="", files=())
    )
    trial = assignment.stored()
    assert (trial.finished() or {})["registrations"] == ["f" * 64]
    table = pq.read_table(root / trial.folder / VALUES)
    [*_, (step, metrics)] = trial.records()
    last = table.to_pandas()
    last = last[(last["step"] == step) & (last["metric"] == "knn/cls_top1")]
    assert last["value"].tolist() == [metrics["knn/cls_top1"]]
