"""For a program or a notebook: run a study, load its results, measure a model.

::

    from orchestrator import load_results, measure, run

What is given is checked as the command of the same name checks it. What it says in its one line is
the text of an InputError here.
"""

from functools import cached_property
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli import entry, studies
from orchestrator.cli.measure import measured
from orchestrator.cli.options import absolute_root
from orchestrator.cli.rendering import interval_text, make_console
from trainers.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from dashboards.tables.reading import StudyRun

Name = str | PathLike[str]


class Results:
    """Results of a study as its run root showed them: a tidy table, verdicts, and how runs ended.

    Jupyter shows it as a table of verdicts, without means and intervals while runs of a fixed
    design are missing: whoever sees an effect early stops early. `table` and `verdicts` hold then
    what `dinolab report` would write.
    """

    def __init__(self, study: "StudyRun", verdicts: "Mapping[str, Any]") -> None:
        self.study = study
        self.verdicts = verdicts
        """what `verdicts.json` holds: claims, hypotheses and gates by id"""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.name

    @property
    def labels(self) -> dict[str, str]:
        """The label of each hypothesis by id."""
        hypotheses = self.verdicts["hypotheses"].items()
        return {name: entry["verdict"]["label"] for name, entry in hypotheses}

    @cached_property
    def table(self) -> "pd.DataFrame":
        """Every recorded value as a row: study, arm, seed, step, metric, layer, head, token, value.

        It is read when first asked for, some 100 bytes a value.
        """
        from dashboards.tables.long import long_table

        return long_table(self.study.entry, self.study.store)

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """How each run ended: arm, seed, status, reason."""
        import pandas as pd

        rows = [
            {"arm": arm, "seed": seed, "status": run.status, "reason": run.reason}
            for (arm, seed), run in self.study.runs.items()
        ]
        return pd.DataFrame(rows, columns=["arm", "seed", "status", "reason"])

    def __repr__(self) -> str:
        labels = ", ".join(f"{name}: {label}" for name, label in self.labels.items())
        return f"<Results of study {self.name}: {labels or 'no hypotheses'}>"

    def _repr_html_(self) -> str:
        from dashboards.tables.derived import interval_shown

        runs = self.study.runs.values()
        early = self.study.design is None and any(run.status == "missing" for run in runs)
        rows = []
        for name, one in self.verdicts["hypotheses"].items():
            verdict = one["verdict"]
            ends, level = interval_shown(one)
            mean = "–" if early or verdict["mean"] is None else f"{verdict['mean']:+.4f}"
            interval = interval_text(None if early else ends, f"{100 * level:.4g} %")
            said = one["hypothesis"]["claim"] or name
            stated = one["stated"]["word"]
            rows.append(
                (name, said, verdict["label"], str(verdict["n"]), mean, interval, stated,
                 "runs are missing" if early and verdict["mean"] is not None else verdict["reason"])
            )  # fmt: skip
        titles = ("hypothesis", "claim", "verdict", "seeds", "mean difference", "interval",
                  "stated", "reason")  # fmt: skip
        ended = sum(run.status == "finished" for run in runs)
        caption = f"Study {self.name}: {ended} of {len(self.study.runs)} runs finished"
        head = "".join(f"<th>{title}</th>" for title in titles)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        return (
            f"<table><caption>{escape(caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def run(
    study: Name,
    root: Name | None = None,
    *,
    data: str | None = None,
    workers: int | str | None = None,
    ablations: "Sequence[Name]" = (),
    scale: str | None = None,
    only: "Sequence[str]" = (),
    seeds: str | None = None,
    max_concurrent: int | None = None,
    leave_cpus: int = 0,
    time_limit: float | None = None,
    move_stragglers: bool = False,
    witness: str | None = None,
    quiet: bool = False,
) -> Results:
    """Run a study as `dinolab run` does, whose options these are, and return its results.

    `study` is a file or the name of a packaged study. Without `root` it is DINOLAB_ROOT, or `runs`.
    Finished runs are not trained again. Raises
    InputError, one line, before anything is trained, and KeyboardInterrupt when interrupted: what
    was finished stays.
    """
    given = _checked(
        "run", study, root=root, data=data, workers=workers, ablations=ablations, scale=scale,
        only=only, seeds=seeds, max_concurrent=max_concurrent, leave_cpus=leave_cpus,
        time_limit=time_limit, move_stragglers=move_stragglers, witness=witness, quiet=quiet,
    )  # fmt: skip
    if witness is not None:
        from orchestrator.witness import refuse_no_witness

        refuse_no_witness(witness)
    names = ("study", "data", "workers", "ablations", "scale", "only", "seeds", "time_limit",
             "move_stragglers")  # fmt: skip
    checked, chosen = studies.asked(*(given[name] for name in names))
    console = make_console()
    try:
        found = studies.trained(
            checked, *studies.usable_root(given["root"], console), console, lambda _: chosen,
            given["max_concurrent"], given["leave_cpus"], quiet=quiet, witnessing=witness,
        )  # fmt: skip
    except typer.Exit:
        # A command says how far it has come and ends; a program is interrupted.
        raise KeyboardInterrupt from None
    return Results(*found)


def load_results(root: Name, study: str) -> Results:
    """The results of the study of that name in a run root, as they are now; nothing is written.

    Raises InputError, one line, when there is no such root or study.
    """
    from dashboards.tables.derived import judged
    from dashboards.tables.reading import read_study
    from trainers.system.store import open_store

    given = _checked("status", study, root=root)
    found = read_study(open_store(absolute_root(given["root"], make_console())), study)
    return Results(found, judged(found))


def measure(
    model: Name,
    data: str | None = None,
    *,
    out: Name | None = None,
    thorough: bool = False,
    limit: int | None = None,
    size: int | None = None,
    weights: Name | None = None,
    heads: int | None = None,
    pretrained: bool = False,
    seed: int = 0,
    layers: str | None = None,
    causal_images: int | None = None,
    patch_queries: int = 64,
    device: str = "auto",
    batch_size: int = 16,
    memory: float = 64.0,
    threads: int | None = None,
    root: Name | None = None,
) -> "pd.DataFrame":
    """How globally a ViT attends: every value of `dinolab measure`, whose options these are.

    One row each: model, metric, layer, head, token, value. `out` is a folder for the report, if one
    is wanted. Raises InputError, one line.
    """
    import pandas as pd

    given = _checked(
        "measure", model, out="." if out is None else out, data=data, thorough=thorough,
        limit=limit, size=size, weights=weights, heads=heads, pretrained=pretrained, seed=seed,
        layers=layers, causal_images=causal_images, patch_queries=patch_queries, device=device,
        batch_size=batch_size, memory=memory, threads=threads, root=root, quiet=True,
    )  # fmt: skip
    console = make_console()
    console.quiet = True
    folder = None if out is None else given["out"]
    opened, _, found = measured(given.pop("model"), console=console, **{**given, "out": folder})
    from dashboards.measurement.report import long_table

    kinds = {"layer": "Int64", "head": "Int64"}
    table: pd.DataFrame = long_table(opened.name, found.metrics).to_pandas().astype(kinds)
    return table


def _checked(command: str, what: Name, **options: Any) -> dict[str, Any]:
    """What a command makes of these words: checked, in its types. Raises InputError, one line."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, (list, tuple)):
            words += [f"{option}={one}" for one in value]
        elif value is not None and value is not False:
            words.append(f"{option}={value}")
    parser = typer.main.get_command(entry.app).commands[command]  # type: ignore[attr-defined]
    try:
        with parser.make_context(f"dinolab {command}", [*words, "--", str(what)]) as context:
            return dict(context.params)
    except typer.TyperException as error:
        raise InputError(entry.line_of(error)) from None
