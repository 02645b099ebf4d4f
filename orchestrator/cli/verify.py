"""The command that computes a study again from its trials: verify."""

import json
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from orchestrator.cli.exit_codes import FAILED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    JsonOption,
    RootOption,
    ScaleOption,
    StudyOrFolderArgument,
    absolute_root,
)
from orchestrator.cli.rendering import make_console
from orchestrator.cli.studies import in_root

if TYPE_CHECKING:
    from dashboards.verification.study import Verified


def verify(
    study: StudyOrFolderArgument,
    root: RootOption = DEFAULT_ROOT,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    json_: JsonOption = False,
) -> None:
    """Compute a study again from its trials alone, and say what is not so; writes nothing.

    Registrations, keys, digests, crops and machines of pairs, results, verdicts, report, figures.
    A line for each finding, with exit code 1. damaged: a file is not what was written. missing:
    something is there no more. differs: two things that must agree do not. deviated: not what was
    planned before there were results. A study that has not finished is no finding.
    With --json one JSON object: study, sha256, checked, notes, findings ({kind, where, what}).
    """
    from dashboards.verification.study import verify_study
    from orchestrator.registration import JUDGING
    from trainers.runs.version import versions_below
    from trainers.system.store import open_store

    console = make_console(aside=json_)
    root, name = in_root(study, absolute_root(root, console), ablations, scale)
    verified = verify_study(open_store(root), name, versions_below(JUDGING))
    if json_:
        print(json.dumps(verified.to_json(), indent=2, ensure_ascii=False))
    else:
        console.print(_table(verified))
        for note in verified.notes:
            console.print(f"note: {note}")
        for finding in verified.findings:
            console.print(finding.line)
        number = len(verified.findings)
        what = {0: "nothing is wrong", 1: "1 finding"}.get(number, f"{number} findings")
        console.print(f"study {verified.study}, sha256 {verified.sha256 or 'unknown'}: {what}")
    if verified.findings:
        raise typer.Exit(FAILED)


def _table(verified: "Verified") -> Table:
    """What was checked, and how much of it."""
    count = {name: f"{number:,}" for name, number in verified.checked.items()}
    table = Table("checked", "how much", title="Computed again")
    table.add_row(
        "registrations", f"chain of {count['registrations']}, {count['witnessed']} witnessed"
    )
    table.add_row("trials", f"{count['trials']}, {count['finished']} with a result")
    table.add_row("files of trials", f"{count['files']} by digest or key")
    if "crops" in count:
        table.add_row("crops", f"{count['crops']} runs that must have seen what another saw")
    if "derived" in count:
        table.add_row("machines", f"pairs of {count['hypotheses']} hypotheses")
        table.add_row(
            "results, verdicts, report, figures", f"{count['derived']} files, byte for byte"
        )
    table.add_row(
        "not checked", f"{count['unsealed']} files on which no number rests: leases, logs"
    )
    return table
