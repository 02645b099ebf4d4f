"""What a reader of the verdicts should know before anything runs, as `plan` and `run` print it."""

from typing import TYPE_CHECKING

from trainers.errors import listed

if TYPE_CHECKING:
    from orchestrator.pilot import Pilot
    from orchestrator.plan import Plan


def notes_on(made: "Plan", pilot: "Pilot | None" = None) -> list[str]:
    """What a reader of the verdicts should know before anything runs, each in a line."""
    from ablations.spec import BASELINE
    from ablations.study.lint import lint, lint_arms, lint_effects

    base = made.arms[BASELINE]
    same = dict.fromkeys(trial.arms for trial in made.trials if len(trial.arms) > 1)
    confounded = [arm for arm, cost in made.arms.items() if cost.differences(base)]
    notes = [*lint(made.study), *lint_arms(made.study, list(same), confounded)]
    if pilot:
        notes += lint_effects(made.study.hypotheses, pilot.runs, pilot.seeds)
        if pilot.otherwise:
            notes.append(
                f"pilot {pilot.name}: {listed(pilot.otherwise)} was trained as it is not declared "
                "now, and says nothing here"
            )
    return notes
