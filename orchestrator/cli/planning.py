"""The command plan: what a run would do and could decide, before anything is trained."""

import os
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.options import (
    DEFAULT_ROOT,
    AblationsOption,
    DataOption,
    JsonOption,
    RootOption,
    ScaleOption,
    StudyArgument,
    WorkersOption,
    absolute_root,
)
from orchestrator.cli.rendering import arms_table, make_console, print_json
from trainers.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ablations.design import Design as Looks
    from ablations.spec import Hypothesis
    from ablations.study.schema import Resources
    from ablations.study.study import Study
    from ablations.verdicts.power import Chances
    from ablations.verdicts.spread import Spread
    from orchestrator.pilot import Pilot
    from orchestrator.plan import Plan, Trial
    from trainers.data.image_set import ImageSet


def plan(
    study: StudyArgument,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            min=0.001,
            max=1e9,
            help="Estimate the time from operations, for a worker that does so many 10¹² a second, "
            "instead of timing steps here: for a study that this machine is too small for.",
            show_default=False,
        ),
    ] = None,
    deviation: Annotated[
        float | None,
        typer.Option(
            "--deviation",
            min=0.001,
            max=1000,
            help="Standard deviation of paired differences that power is stated for where no pilot "
            "shows it, in smallest effects; 1 if not given.",
            show_default=False,
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show what `run` would do and could decide, and train nothing.

    Arms, differences, runs, estimated time; of each hypothesis and claim the power at 1, 1.5 and 2
    smallest effects, the least detectable effect (at 80 %) and the least p that its seeds attain;
    of a sequential design the seeds that it is expected to need too, and the runs that it saves.
    `dinolab pilot` shows how far differences vary; without one that is assumed. With --json the
    words go to standard error, and standard output is one JSON object: study, seeds, runs, arms,
    power (studies, looks, saved, price_of_one_family, assumed_deviation, correlation, pilot),
    hypotheses, claims, notes.
    """
    from ablations.spec import BASELINE
    from ablations.verdicts.spread import ASSUMED_DEVIATION
    from dashboards.tables.chain import find_chain
    from orchestrator.cli.notes import notes_on
    from orchestrator.cli.studies import load, planned
    from orchestrator.driver.root import left_behind_text
    from orchestrator.pilot import read_pilot, refuse_pilot_seeds
    from trainers.system.store import open_store

    console = make_console(aside=json_)
    checked = load(study, data, workers, ablations, scale)
    root = absolute_root(root, console)
    store = open_store(root, make=True)
    refuse_pilot_seeds(checked, store)
    made, images = planned(checked, root, console, console.is_terminal)
    missing = made.missing(store)
    pilot = read_pilot(checked, images, store)
    notes = notes_on(made, pilot)
    if left := left_behind_text(missing, store, find_chain(store, checked.name)):
        notes.insert(0, left)
    power = _power(checked, pilot, ASSUMED_DEVIATION if deviation is None else deviation)
    _show_arms(made, images, console)
    _show_stated(checked, console)
    _show_power(checked, power, console)
    for note in notes:
        console.print(f"note: {note}")
    text, time = _time(made, missing, images, pilot, tflops, console)
    console.print(text)
    if json_:
        runs = {"planned": len(made.trials), "to_train": len(missing), **time}
        arms = {
            arm: {**vars(cost), "differences": cost.differences(made.arms[BASELINE])}
            for arm, cost in made.arms.items()
        }
        content = {"study": checked.name, "seeds": checked.seeds, "runs": runs, "arms": arms}
        print_json({**content, **power, "notes": notes})


def _power(study: "Study", pilot: "Pilot | None", deviation: float) -> dict[str, Any]:
    """Power of hypotheses and claims, and what it rests on, as JSON types."""
    from ablations.study.families import within_claims
    from ablations.verdicts import sequential_power
    from ablations.verdicts.planning import holm_sizes
    from ablations.verdicts.power import MULTIPLES, STUDIES, Design
    from ablations.verdicts.spread import assumed, of_pilot

    hypotheses, seeds = study.hypotheses, len(study.seeds)
    spread = assumed(hypotheses, deviation)
    if pilot:
        spread = of_pilot(hypotheses, pilot.runs, pilot.seeds, deviation)
    design = Design(
        hypotheses=hypotheses,
        claims=study.claims,
        seeds=seeds,
        spread=spread,
        multiplicity=study.multiplicity,
    )
    looks, expected = study.design, None
    if looks:
        design = sequential = sequential_power.SequentialDesign(
            hypotheses=hypotheses,
            claims=study.claims,
            seeds=seeds,
            spread=spread,
            multiplicity=study.multiplicity,
            looks=looks,
            arms=tuple(study.arms),
        )
        sizes = sequential_power.holm_sizes_over_looks(hypotheses, study.multiplicity)
        expected = {f"{multiple:g}": sequential.expected(multiple) for multiple in MULTIPLES}
        powers = {at: one.power for at, one in expected.items()}
    else:
        sizes = holm_sizes(hypotheses, study.multiplicity)
        powers = {f"{multiple:g}": design.power(multiple) for multiple in MULTIPLES}
    least = design.least_detectable()
    price = None
    has_power = any(one is not None for one in powers["1.5"].hypotheses.values())
    if has_power and study.multiplicity.over == "study":
        within = replace(design, hypotheses=within_claims(hypotheses, study.claims))
        price = {"study": _mean(powers["1.5"]), "claim": _mean(within.power(1.5))}
    rests_on = {
        "studies": sequential_power.STUDIES if looks else STUDIES,
        "looks": looks and looks.model_dump(mode="json"),
        "saved": {at: one.saved for at, one in expected.items()} if expected else None,
        "price_of_one_family": price,
        "assumed_deviation": deviation,
        "correlation": spread.correlation.tolist(),
        "pilot": pilot and {"study": pilot.name, "seeds": pilot.seeds, "arms": pilot.arms},
    }
    return {
        "power": rests_on,
        "hypotheses": {
            name: {
                **one.model_dump(mode="json"),
                "deviation": spread.deviations.get(name),
                "deviation_from": _source(spread, name),
                "power": {at: found.hypotheses[name] for at, found in powers.items()},
                "least_detectable": _times(least.hypotheses[name], one.smallest_effect),
                **_least_p(one, seeds, sizes[name], looks),
                "seeds": {at: it.seeds[name] for at, it in expected.items()} if expected else None,
            }
            for name, one in hypotheses.items()
        },
        "claims": {
            name: {
                **claim.model_dump(mode="json"),
                "power": {at: found.claims[name] for at, found in powers.items()},
                "least_detectable": least.claims[name],
            }
            for name, claim in study.claims.items()
        },
    }


def _least_p(
    hypothesis: "Hypothesis", seeds: int, size: int, looks: "Looks | None"
) -> dict[str, Any]:
    """The least p that a hypothesis can have at the end, and at each look."""
    from ablations.verdicts.planning import least_p
    from ablations.verdicts.sequential_power import least_p_at

    if not looks:
        return {"least_p": least_p(hypothesis, seeds, size), "least_p_at_looks": None}
    found = dict(zip(map(str, looks.looks), least_p_at(hypothesis, looks, size), strict=True))
    return {"least_p": min(found.values()), "least_p_at_looks": found}


def _mean(chances: "Chances") -> float:
    """The mean power of hypotheses."""
    return statistics.fmean(one for one in chances.hypotheses.values() if one is not None)


def _source(spread: "Spread", name: str) -> str | None:
    if name not in spread.deviations:
        return None  # a yes or no
    return "pilot" if name in spread.from_pilot else "assumed"


def _times(multiple: float | None, effect: float) -> float | None:
    return None if multiple is None else multiple * effect


def _show_arms(made: "Plan", images: "ImageSet", console: Console) -> None:
    from ablations.spec import BASELINE

    study = made.study
    console.print(
        f"study {study.name}: recipe {study.recipe}, {len(images)} images "
        f"({len(images.train)} to train, {len(images.test)} held out), "
        f"seeds {', '.join(map(str, study.seeds))}",
    )
    console.print(arms_table(made))
    table = Table("arm", "what else differs from the baseline", title="Confounds")
    base = made.arms[BASELINE]
    for arm, cost in made.arms.items():
        if arm != BASELINE:
            lines = "\n".join(cost.differences(base)) or "nothing that is known"
            table.add_row(arm, lines)
    console.print(table)


def _show_stated(study: "Study", console: Console) -> None:
    if study.claims:
        table = Table("claim", "", "rule", "hypotheses", title="Claims")
        for name, claim in study.claims.items():
            table.add_row(name, claim.text, claim.rule, "\n".join(claim.hypotheses))
        console.print(table)
    table = Table("hypothesis", "contrast", "end point", "expected", title="Hypotheses")
    for name, hypothesis in study.hypotheses.items():
        since = " since step 0" if hypothesis.minus_start else ""
        table.add_row(
            name,
            " − ".join(side for side in hypothesis.sides if side),
            " against ".join(filter(None, (hypothesis.end_point, hypothesis.metric_against)))
            + since,
            f"{hypothesis.direction}, smallest effect {hypothesis.smallest_effect:g}",
        )
    console.print(table)


def _show_power(study: "Study", power: "Mapping[str, Any]", console: Console) -> None:
    if not study.hypotheses:
        return
    table = Table("", "s", "deviation", title="Power", title_justify="left")
    columns = ["at 1 s", "at 1.5 s", "at 2 s", "80 % from", "least p"]
    for column in columns + ["seeds"] * bool(study.design):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in power["hypotheses"].items():
        star = "*" * (found["deviation_from"] == "assumed")
        deviation = f"{found['deviation']:.2g}{star}" if found["deviation"] else "–"
        table.add_row(
            name,
            f"{found['smallest_effect']:g}",
            deviation,
            *_percents(found["power"]),
            _number(found["least_detectable"]),
            _over_looks(found["least_p_at_looks"]) or _number(found["least_p"]),
            *([" ".join(f"{n:.1f}" for n in found["seeds"].values())] if study.design else []),
        )
    for name, found in power["claims"].items():
        detectable = _number(found["least_detectable"], " s")
        table.add_row(f"claim {name}", "", "", *_percents(found["power"]), detectable, "")
    console.print(table)
    console.print(_assumptions(study, power))


def _percents(power: "Mapping[str, float]") -> list[str]:
    return [f"{100 * chance:.0f} %" for chance in power.values()]


def _number(number: float | None, unit: str = "") -> str:
    return "–" if number is None else f"{number:.2g}{unit}"


def _over_looks(least: "Mapping[str, float] | None") -> str:
    """The least p at each look, of more than four at the first and the last."""
    numbers = [_number(p) for p in (least or {}).values()]
    return " ".join(numbers) if len(numbers) <= 4 else f"{numbers[0]} … {numbers[-1]}"


def _assumptions(study: "Study", power: "Mapping[str, Any]") -> str:
    """What the power of a plan is the chance of, and what of it is assumed."""
    rests_on = power["power"]
    decided = "followed from look to look" if study.design else "decided once"
    text = (
        f"power: the chance of `supported` in {rests_on['studies']:,} simulated studies of normal "
        f"differences at {len(study.seeds)} seeds, {decided} by the tests, families and rules "
        "that will be used; s, the smallest effect, or 1.5 or 2 of it, is the true effect "
        "everywhere at once, and 0 where nothing changes (holds); gates are passed and controls "
        "differ"
    )
    if saved := rests_on["saved"]:
        text += (
            "; seeds: mean number at which it is decided, at 1 s, 1.5 s and 2 s, where "
            f"{', '.join(f'{100 * share:.0f} %' for share in saved.values())} of all runs are not "
            "needed; least p: over all looks, at each of them"
        )
    if price := rests_on["price_of_one_family"]:
        text += (
            f"; the mean power of hypotheses at 1.5 s is {100 * price['study']:.0f} %, and would "
            f"be {100 * price['claim']:.0f} % if claims were families (multiplicity over: claim)"
        )
    deviation = f"assumed at {rests_on['assumed_deviation']:g} × the smallest effect"
    if pilot := rests_on["pilot"]:
        text += (
            f"; deviations are upper 80 % limits of those of {pilot['study']} (seeds "
            f"{', '.join(map(str, pilot['seeds']))}), those marked * are {deviation}; correlations "
            "are the pilot's, shrunk towards 0"
        )
    else:
        text += (
            f"; deviations (*) are {deviation}, and hypotheses assumed independent: `dinolab "
            "pilot` would show both, --deviation assumes another"
        )
    return text


def _time(
    made: "Plan",
    missing: "list[Trial]",
    images: "ImageSet",
    pilot: "Pilot | None",
    tflops: float | None,
    console: Console,
) -> tuple[str, dict[str, Any]]:
    """How long training what is `missing` takes, in words, and as JSON."""
    start = (
        f"{len(made.trials)} runs, {len(made.trials) - len(missing)} finished, {len(missing)} to "
        "train: about"
    )
    if tflops is not None:
        hours = made.operations(missing) / (tflops * 1e12) / 3600
        text = (
            f"{start} {hours:,.1f} worker-hours at {tflops:g} TFLOP/s a worker, "
            f"{hours / max(1, len(missing)):.2f} a run, for the operations of training steps alone"
        )
        return text, {"worker_hours": hours}
    concurrent = _at_once_here(made.study.resources, console)
    if pilot and pilot.seconds:
        mean = statistics.fmean(pilot.seconds.values())
        times = [pilot.seconds.get(trial.arms[0], mean) for trial in missing]
        seconds, source = sum(times) / concurrent, f", as the runs of {pilot.name} took"
    else:
        from orchestrator.cost import measure
        from trainers.config import in_steps

        threads = made.study.resources.cpus_per_worker
        base = in_steps(made.study.base, len(images.train))
        timing = measure(base, images, threads=threads)
        seconds, source = sum(timing.trial_s(trial.config) for trial in missing) / concurrent, ""
    text = f"{start} {seconds / 60:.1f} min on this machine, {concurrent} at a time{source}"
    return text, {"seconds_here": seconds, "at_a_time": concurrent}


def _at_once_here(resources: "Resources", console: Console) -> int:
    """How many trials run here at once, 1 at least; says why when the machine holds none."""
    import torch

    from orchestrator.resources import Node, place

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    try:
        return place(resources, [Node(name="this machine", cpus=cpus, gpus=gpus)]).concurrent
    except InputError as error:
        if not os.environ.get("RAY_ADDRESS"):
            console.print(f"note: {error}")
        return 1
