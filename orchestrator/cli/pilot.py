"""The command pilot: a few runs that show how far differences vary, and count in no verdict."""

from typing import Annotated

import typer

from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    DataOption,
    LeaveCpusOption,
    MaxConcurrentOption,
    OnlyOption,
    QuietOption,
    RootOption,
    ScaleOption,
    StudyArgument,
    WorkersOption,
)
from orchestrator.cli.rendering import make_console, show_verdicts


def pilot(
    study: StudyArgument,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=2, max=1000, help="How many, none of them the study's.")
    ] = 3,
    only: OnlyOption = None,
    max_concurrent: MaxConcurrentOption = None,
    leave_cpus: LeaveCpusOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Train the arms of a study at other seeds, which never count in its verdicts.

    They are a study of their own in the run root, NAME-pilot, of no hypotheses; its seeds begin at
    1,000,000, and a study that has one of them is refused. `dinolab plan` then states power for the
    deviations, correlations and times that it shows. With --only it has the baseline and these
    arms. Given again, with more seeds or arms, it grows.
    """
    from orchestrator.cli.choosing import chosen_trials
    from orchestrator.cli.studies import load, planned, trained, usable_root
    from orchestrator.pilot import pilot_of, read_pilot

    console = make_console()
    checked = load(study, data, workers, ablations, scale)
    chosen_trials(checked.arms, (), only, None)  # refuses an arm that is not there
    root, store = usable_root(root, console)
    _, images = planned(checked, root, console, console.is_terminal)
    made = pilot_of(checked, seeds, only, read_pilot(checked, images, store))
    console.print(
        f"pilot of study {checked.name}: seeds {', '.join(map(str, made.seeds))}, which never "
        "count in its verdicts; `dinolab plan` uses what they show"
    )
    found = trained(
        made, root, store, console, lambda _: lambda _: True, max_concurrent, leave_cpus,
        quiet=quiet, with_notes=False, amending="what was asked of the pilot has changed",
    )  # fmt: skip
    show_verdicts(*found, root, console)
