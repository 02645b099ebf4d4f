"""The command that states a change of a study: amend."""

from typing import Annotated

import typer

from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    DataOption,
    RootOption,
    ScaleOption,
    StudyArgument,
    WitnessOption,
    absolute_root,
)
from orchestrator.cli.rendering import make_console
from orchestrator.cli.studies import load, planned


def amend(
    study: StudyArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why the study was changed.")
    ],
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    witness: WitnessOption = None,
) -> None:
    """State a change of a study that is registered; trains nothing.

    The registration before stays, and the new one says which results exist already. A hypothesis
    that was changed when results of its arms existed is exploratory from then on, in every table,
    figure and report.
    """
    from ablations.changes import changes
    from ablations.stated import lines_of, stated
    from dashboards.tables.chain import refuse_old_layout
    from orchestrator.pilot import refuse_pilot_seeds
    from orchestrator.registration import Statement, said
    from orchestrator.witness import refuse_no_witness
    from orchestrator.witness import witness as shown_to
    from trainers.system.store import open_store

    reason = said(reason)
    if witness is not None:
        refuse_no_witness(witness)
    console = make_console()
    checked = load(study, data, None, ablations, scale)
    root = absolute_root(root, console)
    store = open_store(root)
    refuse_old_layout(store, checked.name)
    refuse_pilot_seeds(checked, store)
    plan, images = planned(checked, root, console, console.is_terminal)
    statement = Statement(plan, images, store)
    entry = statement.amend(reason)
    for line in changes(statement.chain[-2], entry):
        console.print(line)
    console.print(f"registration {entry.number} of study {entry.study}: sha256 {entry.digest}")
    console.print(f"{len(entry.known)} results of its trials existed already")
    for line in lines_of(stated(statement.chain)):
        console.print(line)
    if witness is not None:
        console.print(f"witnessed: {shown_to(entry, store, witness)}")
