"""`results.parquet` and `verdicts.json`, derived from the run root.

Both are written whole, and their bytes depend on what the trials measured and what was registered,
and on nothing else: not on the clock, and not on the order in which trials finished.
"""

import functools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.design import Design
from ablations.spec import Claim, Hypothesis
from ablations.stated import stated, stated_claims
from ablations.verdicts.claims import ClaimVerdict, judge_claims
from ablations.verdicts.crossings import crossed
from ablations.verdicts.gates import measure_gates, missed_gates
from ablations.verdicts.images import image_error
from ablations.verdicts.judge import Verdict, decisive_p, judge
from ablations.verdicts.looks import Runs, follow
from ablations.verdicts.proofs import prove
from dashboards.tables.long import LONG, long_tables
from dashboards.tables.reading import StudyRun
from trainers.metrics import OF_THE_MACHINE

RESULTS = "results.parquet"

VERDICTS = "verdicts.json"

STATED = "dinolab.stated"
"""Key of the metadata of `results.parquet`, and of a tag in MLflow."""

_ROWS_A_GROUP = 2**18
"""More rows than that begin a new group, so that few are held at once."""


def write_results(study: StudyRun) -> str:
    """Writes `results.parquet`: what the trials of `study` recorded; same values, same bytes.

    Its metadata say how each hypothesis was stated: `dinolab.stated`, a JSON object of words.
    Times and memory are left out: they differ between two runs of the same bits. MLflow, and the
    records of each trial, have them.
    """
    key = f"{study.folder}/{RESULTS}"
    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        path = Path(scratch) / RESULTS
        save_results(study, path)
        study.store.put_file(key, path)
    return key


def save_results(study: StudyRun, path: Path) -> None:
    """The same into a file."""
    words = {name: one.word for name, one in stated(study.chain).items()}
    schema = LONG.with_metadata({STATED: json.dumps(words)})
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        tables = map(_of_the_model, long_tables(study.entry, study.store))
        for group in _groups(tables):
            file.write_table(group)


def _of_the_model(table: pa.Table) -> pa.Table:
    """The rows whose metric says something of the model."""
    starts = [pc.starts_with(table["metric"], start) for start in OF_THE_MACHINE]
    return table.filter(pc.invert(functools.reduce(pc.or_, starts)))


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows >= _ROWS_A_GROUP:
            yield pa.concat_tables(held).combine_chunks()
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def judged(study: StudyRun) -> dict[str, Any]:
    """The verdicts of a study as `verdicts.json` holds them: numbers that do not exist are None.

    Keys: study, hypotheses_sha256, registration ({number, sha256} of the newest), claims ({id:
    {claim, verdict, stated}}), hypotheses ({id: {hypothesis, verdict, stated, images}}), gates
    ({id: {gate, arms: {arm: {mean, seeds_without, passed}}}}) and proofs (see
    ablations/verdicts/proofs.py). `stated` is {word, why}, `images` that of ablations/verdicts/
    images.py. A claim that something crosses 0 has `crossed` beside its verdict, which is that of
    ablations/verdicts/crossings.py.
    """
    hypotheses, gates, claims = study.hypotheses, study.gates, study.claims
    references = study.entry.dataset.get("references", {})
    multiplicity = study.entry.resolved.multiplicity
    measured = measure_gates(gates, study.runs, study.seeds, references)
    again = functools.partial(
        judge,
        gates=gates,
        seeds=study.seeds,
        multiplicity=multiplicity,
        references=references,
    )
    stops: dict[str, int] = {}

    def judged_by(
        stated: Mapping[str, Hypothesis],
        runs: Runs,
        design: Design | None = None,
        advise: bool = False,
    ) -> dict[str, Verdict]:
        if design is None:
            return again(stated, runs=runs, advise=advise)
        found = follow(
            stated,
            gates,
            runs,
            study.seeds,
            design,
            multiplicity=multiplicity,
            references=references,
            advise=advise,
            stops=stops,
        )
        return {name: one.verdict for name, one in found.items()}

    verdicts = judged_by(hypotheses, study.runs, study.design, advise=True)
    stops |= {name: len(verdict.seeds) for name, verdict in verdicts.items()}
    labels = {name: verdict.label for name, verdict in verdicts.items()}
    of_claims = judge_claims(claims, hypotheses, labels, decisive_p(hypotheses, verdicts))
    words = stated(study.chain)
    words_of_claims = stated_claims(study.entry, words)
    missed = missed_gates(gates, measured, study.runs)
    content = {
        "study": study.name,
        "hypotheses_sha256": study.entry.hypotheses_sha256,
        "registration": {"number": study.entry.number, "sha256": study.entry.digest},
        "claims": {
            name: {
                "claim": claim.model_dump(mode="json"),
                "stated": words_of_claims[name].to_json(),
                **_decided(study, claim, of_claims[name], verdicts, missed),
            }
            for name, claim in claims.items()
        },
        "hypotheses": {
            name: {
                "hypothesis": hypothesis.model_dump(mode="json"),
                "verdict": verdicts[name].to_json(),
                "stated": words[name].to_json(),
                "images": image_error(
                    hypothesis,
                    study.runs,
                    verdicts[name].seeds,
                    at_looks=study.design is not None,
                ),
            }
            for name, hypothesis in hypotheses.items()
        },
        "gates": {
            name: {
                "gate": gate.model_dump(mode="json"),
                "arms": {arm: found.to_json() for arm, found in measured[name].items()},
            }
            for name, gate in gates.items()
        },
        "proofs": prove(
            hypotheses,
            claims,
            study.runs,
            study.seeds,
            verdicts,
            judged_by,
            multiplicity,
            study.design,
        ),
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return plain


def _decided(
    study: StudyRun,
    claim: Claim,
    decided: ClaimVerdict,
    verdicts: Mapping[str, Verdict],
    missed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The verdict of a claim, and of one that something crosses 0, where it does."""
    verdict = decided.to_json()
    if claim.crossing is None:
        return {"verdict": verdict}
    where = crossed(
        claim.crossing,
        study.runs,
        # Of a sequential design the first and the last rung may be decided at different looks.
        min((verdicts[one].seeds for one in claim.hypotheses), key=len),
        missed=missed,
        looks=len(study.design.looks) if study.design else 1,
    )
    said = {"reason": f"{verdict['reason']}; {where.reason}"}
    return {"verdict": verdict | said, "crossed": where.to_json()}


def write_verdicts(study: StudyRun, verdicts: Mapping[str, Any]) -> str:
    """Writes `verdicts.json` into the run folder of `study`."""
    key = f"{study.folder}/{VERDICTS}"
    study.store.put(key, verdicts_content(verdicts))
    return key


def verdicts_content(verdicts: Mapping[str, Any]) -> bytes:
    """What `verdicts.json` holds."""
    return (json.dumps(verdicts, indent=2, ensure_ascii=False) + "\n").encode()


def interval_shown(entry: Mapping[str, Any]) -> tuple[list[float] | None, float]:
    """The interval that decides an entry of `hypotheses`, and its level, in (0, 1).

    For `holds` that of the equivalence test, 1 - 2 alpha; else, and where it is refuted, 1 - alpha.
    """
    alpha = entry["hypothesis"]["alpha"]
    if entry["hypothesis"]["direction"] == "holds" and entry["verdict"]["label"] != "refuted":
        return entry["verdict"]["interval_equivalence"], 1 - 2 * alpha
    return entry["verdict"]["interval"], 1 - alpha
