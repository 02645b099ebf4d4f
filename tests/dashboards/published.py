"""The studies of docs/, as their run folders showed them."""

from collections import defaultdict
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.registration import STUDIES
from ablations.verdicts.evidence import Run
from dashboards.tables.chain import read_chain
from dashboards.tables.reading import StudyRun, _shown
from trainers.evaluation.collapse import collapsed
from trainers.system.store import Store, open_store

DOCS = Path(__file__).parents[2] / "docs"


def published_store(folder: Path) -> Store:
    """A run root in `folder` whose studies are those of docs/."""
    (folder / STUDIES).symlink_to(DOCS)
    return open_store(folder)


def published(store: Store, name: str) -> StudyRun:
    """A published study as its run folder showed it; the collapse panel says which collapsed."""
    whole = pq.read_table(DOCS / name / "results.parquet")
    table = whole.filter(pc.is_null(whole["layer"]))
    of_arms = table.group_by("arm").aggregate([("step", "max")])
    last = dict(zip(of_arms["arm"].to_pylist(), of_arms["step_max"].to_pylist(), strict=True))
    values: dict[tuple[str, int, int], dict[str, float]] = defaultdict(dict)
    columns = [table[name].to_pylist() for name in ("arm", "seed", "step", "metric", "value")]
    for arm, seed, step, metric, value in zip(*columns, strict=True):
        values[arm, seed, step][metric] = value
    runs = {}
    for arm, seed in dict.fromkeys((arm, seed) for arm, seed, _ in values):
        end = values[arm, seed, last[arm]]
        why = collapsed(end)
        runs[arm, seed] = Run(
            status="collapsed" if why else "finished",
            reason=why,
            start=values[arm, seed, 0],
            end=end,
        )
    chain = tuple(read_chain(store, name))
    return StudyRun(store=store, chain=chain, runs=runs, table=_shown(whole))
