"""What the runs of a study and of its arms hold in MLflow: numbers, parameters and words.

Pure functions of what the trials measured and of the verdicts on it.
"""

import hashlib
import html
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from ablations.contrast import BASELINE
from ablations.spec import Hypothesis
from ablations.statistics.summary import Summary
from ablations.verdicts.evidence import Run, pairs_of
from ablations.verdicts.rule import Label
from ablations.verdicts.summaries import summary_of
from dashboards.figures.compared import compared, end_point
from dashboards.tables.derived import interval_shown
from dashboards.tables.reading import StudyRun
from trainers.config import leaves
from trainers.metrics import OF_THE_MACHINE

LONGEST_TAG = 5000
"""Characters that every MLflow server takes as the value of a tag."""

LONGEST_PARAMETER = 500
"""The same of a parameter."""

LONGEST_NAME = 150
"""Characters of a name of ours in that of a metric, which MLflow ends at 250."""

ARM_PARAMETER = "arm"

ALPHA = 0.05
"""Intervals of arms are at level 1 - ALPHA, whatever a hypothesis asks for."""

WITHOUT_MEAN = (*OF_THE_MACHINE, "data/chain")
"""What the names of metrics begin with whose mean over seeds says nothing."""

Verdicts = Mapping[str, Any]
"""As `verdicts.json` holds them."""


def allowed_name(name: str) -> str:
    """`name` as MLflow allows it in that of a metric, different for different names.

    One that holds other characters, or too many, ends with a digest of what it was.
    """
    plain = re.sub(r"[^\w\- .]|^\.", "_", name, flags=re.ASCII).strip()
    if plain == name and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9]}-{digest}"


def study_numbers(verdicts: Verdicts) -> dict[str, float]:
    """How many hypotheses have each label, and effect, interval and p of each that has them.

    Named `verdicts/LABEL`, and `verdict/NAME/` effect, low, high and p, in the units of the end
    point; p is the one that the label rests on. An interval may have no end: then it is not there.
    """
    entries = verdicts["hypotheses"]
    counts = Counter(entry["verdict"]["label"] for entry in entries.values())
    numbers = {f"verdicts/{label}": float(counts[label]) for label in get_args(Label)}
    for name, entry in entries.items():
        verdict, (ends, _) = entry["verdict"], interval_shown(entry)
        low, high = ends or (None, None)
        p = "p_equivalence" if entry["hypothesis"]["direction"] == "holds" else "p_adjusted"
        found = {
            "effect": verdict["mean"],
            "low": low,
            "high": high,
            "p": None if verdict["label"] == "failed" else verdict[p],
        }
        numbers |= {
            f"verdict/{allowed_name(name)}/{part}": float(value)
            for part, value in found.items()
            if value is not None and math.isfinite(value)
        }
    return numbers


def arm_numbers(study: StudyRun, arm: str) -> dict[str, float]:
    """Means and deviations of an arm, and of each end point its difference from the baseline.

    Named `METRIC/` mean and sd; of what a hypothesis names also low, high, difference,
    difference_low and difference_high: differences are of equal seeds, intervals at level
    1 - ALPHA.
    """
    ended = [run for run in (study.runs[arm, seed] for seed in study.seeds) if is_at_end(run)]
    numbers: dict[str, float] = {}
    for name, one in end_points(study.hypotheses.values()).items():
        alone = _summary(study, one, (arm,))
        numbers |= _named(name, ("mean", "low", "high"), alone)
        if arm != BASELINE and BASELINE in study.arms:
            against = _summary(study, one, (arm, BASELINE))
            parts = ("difference", "difference_low", "difference_high")
            numbers |= _named(name, parts, against)
    return numbers | over_seeds(ended)


def end_points(hypotheses: Iterable[Hypothesis]) -> dict[str, Hypothesis]:
    """What hypotheses compare, by its name in MLflow, each with the first of them."""
    found: dict[str, Hypothesis] = {}
    for one in hypotheses:
        metrics = (one.metric, one.metric_against or one.metric)
        for name, metric in zip(end_point_names(one), metrics, strict=False):
            found.setdefault(name, one.model_copy(update={"metric": metric}))
    return found


def end_point_names(hypothesis: Hypothesis) -> list[str]:
    """The name in MLflow of what a hypothesis compares; two where the sides have a metric each."""
    if hypothesis.endpoint:
        return [f"ended/{hypothesis.endpoint}"]
    metrics = dict.fromkeys((hypothesis.metric, hypothesis.metric_against or hypothesis.metric))
    since = "/since_start" if hypothesis.minus_start else ""
    return [f"{metric.replace('@', ' at ')}{since}" for metric in metrics]


def over_seeds(runs: Sequence[Run]) -> dict[str, float]:
    """`NAME/mean` and `NAME/sd` over the last steps of `runs`; no deviation of a single one."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.end.items():
            if "@" not in name and not name.startswith(WITHOUT_MEAN):
                values.setdefault(name, []).append(value)
    means = {f"{name}/mean": statistics.fmean(found) for name, found in values.items()}
    deviations = {
        f"{name}/sd": statistics.stdev(found) for name, found in values.items() if len(found) > 1
    }
    return means | deviations


def is_at_end(run: Run) -> bool:
    """Whether a run came to its last step: one that diverged, failed or is missing did not."""
    return run.status in ("finished", "collapsed")


def arm_parameters(study: StudyRun, arm: str) -> dict[str, str]:
    """The arm's name, and each knob that it changes."""
    knobs = dict(leaves(study.entry.arms[arm].change))
    named = {ARM_PARAMETER: arm} | {knob: str(value) for knob, value in knobs.items()}
    return {knob: shortened(value, LONGEST_PARAMETER) for knob, value in named.items()}


def verdicts_text(verdicts: Verdicts, names: Iterable[str]) -> str:
    """The labels of those hypotheses, as a tag."""
    labels: dict[str, list[str]] = {}
    for name in names:
        labels.setdefault(verdicts["hypotheses"][name]["verdict"]["label"], []).append(name)
    text = "; ".join(
        f"{label}: {', '.join(labels[label])}" for label in get_args(Label) if label in labels
    )
    return shortened(text, LONGEST_TAG)


def study_note(study: StudyRun, verdicts: Verdicts) -> str:
    """The claims of a study with their verdicts, in Markdown; its hypotheses where it has none."""
    claims = [
        f"- **{one['verdict']['label']}**, {one['stated']['word']}: {_plain(one['claim']['text'])} "
        f"*({_plain(one['verdict']['reason'])})*"
        for one in verdicts["claims"].values()
    ]
    hypotheses = [_hypothesis_line(name, one) for name, one in verdicts["hypotheses"].items()]
    return _whole_lines(
        [
            f"**Study {_plain(study.name)}**: {len(study.arms)} arms × {len(study.seeds)} seeds, "
            f"registration {study.entry.number}. The whole report is the artifact `report.html`.",
            "",
            *(claims or hypotheses),
        ]
    )


def arm_note(study: StudyRun, verdicts: Verdicts, arm: str) -> str:
    """What an arm changes, what it was asked, and the verdicts, in Markdown."""
    changes = [
        f"`{knob}` = `{_code(value)}`"
        for knob, value in arm_parameters(study, arm).items()
        if knob != ARM_PARAMETER
    ]
    lines = [f"**Arm {_plain(arm)}** changes {', '.join(changes) or 'nothing'}.", ""]
    for name, one in study.hypotheses.items():
        if arm in one.arms:
            lines.append(_hypothesis_line(name, verdicts["hypotheses"][name]))
    return _whole_lines(lines)


def shortened(text: str, longest: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _summary(study: StudyRun, one: Hypothesis, contrast: tuple[str, ...]) -> Summary:
    plain = Hypothesis(
        metric=one.metric,
        endpoint=one.endpoint,
        minus_start=one.minus_start,
        paired=one.paired or len(contrast) < 2,
        contrast=contrast,
        direction="differs",
        smallest_effect=one.smallest_effect,
        alpha=ALPHA,
    )
    return summary_of(plain, pairs_of(plain, study.runs, study.seeds))


def _named(name: str, parts: tuple[str, str, str], found: Summary) -> dict[str, float]:
    values = (found.mean, *(found.interval or (None, None)))
    return {
        f"{name}/{part}": float(value)
        for part, value in zip(parts, values, strict=True)
        if value is not None and math.isfinite(value)
    }


_ASKED = {
    "rises": "does it rise by {} or more?",
    "falls": "does it fall by {} or more?",
    "differs": "does it differ by {} or more?",
    "holds": "does it hold within {}?",
}


def _hypothesis_line(name: str, entry: Mapping[str, Any]) -> str:
    hypothesis, verdict = entry["hypothesis"], entry["verdict"]
    asked = _ASKED[hypothesis["direction"]].format(f"{hypothesis['smallest_effect']:g}")
    since = " since step 0" if hypothesis["minus_start"] else ""
    claim = f" {_plain(hypothesis['claim'])}" if hypothesis["claim"] else ""
    return (
        f"- **{verdict['label']}**, {entry['stated']['word']}, {_plain(name)}:{claim} "
        f"{_plain(compared(hypothesis))}, {_plain(end_point(hypothesis))}{since}: {asked} "
        f"*({_plain(verdict['reason'])})*"
    )


def _plain(text: str) -> str:
    """`text` in one line, of which Markdown and HTML make nothing."""
    line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _whole_lines(lines: Sequence[str]) -> str:
    """As many lines as a tag holds."""
    for kept in range(len(lines), 0, -1):
        left = len(lines) - kept
        rest = [f"- and {left} more, in the report"] if left else []
        if len(text := "\n".join([*lines[:kept], *rest])) <= LONGEST_TAG:
            return text
    return shortened(lines[0], LONGEST_TAG)
