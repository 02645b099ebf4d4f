"""The command line: `dinolab`, or `python -m orchestrator`.

Commands import what they need when they run: torch, Ray and MLflow take seconds, and `--help` none.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from orchestrator import interrupt
from trainers.errors import DinolabError, InputError, StudyError

if TYPE_CHECKING:
    from ablations.study.loading import Study
    from dashboards.tables.reading import StudyRun
    from orchestrator.plan import Plan
    from trainers.config import DataConfig
    from trainers.data.image_set import ImageSet
    from trainers.system.storage import Location

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Declared ablations of DINO vision transformers: paired seeds, checked changes, verdicts.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 runs are missing, 130 interrupted.",
)

DONE, FAILED, BAD_INPUT, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130

RootOption = Annotated[
    Path,
    typer.Option(
        "--root",
        envvar="DINOLAB_ROOT",
        help="Run root: studies, data indexes and the MLflow store lie in it.",
    ),
]
StudyArgument = Annotated[Path, typer.Argument(help="Study file (YAML).", show_default=False)]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Replaces the study's data set: `digits`, a folder of images "
        "(its sub-folders are the labels), or what `dinolab ingest` made.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that train one model (a Ray Train worker group when more than one); "
        "replaces the study's own.",
        show_default=False,
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="Which of the study file's scales, where it is written for several.",
        show_default=False,
    ),
]
AblationsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--ablations",
        metavar="PATH",
        help="Ablations of your own: a file that sets ABLATION, or a folder of such; may be given "
        "again.",
        show_default=False,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Plain lines instead of live progress.")
]
DEFAULT_ROOT = Path("runs")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120, soft_wrap=not sys.stdout.isatty())


def _root(root: Path, console: Console) -> Path:
    """The run root as an absolute path.

    A Ray job runs in a temporary copy of its working directory, which goes with the cluster: there
    a relative root lies under the home directory of the node instead.
    """
    if root.is_absolute() or "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return root.absolute()
    root = Path.home() / root
    console.print(f"Ray job: run root {root} (absolute --root or DINOLAB_ROOT to choose another)")
    return root


def _open_images(
    config: "DataConfig", root: Path, console: Console, live: bool, *, listed: str = ""
) -> "ImageSet":
    """Open the data set, indexing a folder on first use, and say what was skipped.

    `listed` says where all of that is, when there is more than is printed.
    """
    from trainers.data.image_set import CACHE, open_images

    with Progress(console=console, transient=True, disable=not live) as progress:
        task = progress.add_task("indexing images", total=None)
        images = open_images(
            config,
            root / CACHE,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    from trainers.system.storage import printable

    if images.skipped:
        console.print(
            f"skipped {len(images.skipped)} of {len(images) + len(images.skipped)} files in "
            f"{config.source}:",
            highlight=False,
        )
        for skipped in images.skipped[:20]:
            line = printable(f"  {skipped.path}: {skipped.reason}")
            console.print(line, markup=False, highlight=False)
        if len(images.skipped) > 20:
            console.print(f"  and {len(images.skipped) - 20} more{listed}")
    return images


def _load(
    path: Path,
    data: str | None,
    workers: int | None,
    ablations: list[Path] | None,
    scale: str | None,
) -> "Study":
    import dataclasses

    from ablations.study.loading import load_study

    study = load_study(path, data, ablations or (), scale)
    if workers is not None:
        resources = study.resources.model_copy(update={"workers": workers})
        study = dataclasses.replace(study, resources=resources)
    if study.base.batch_size % study.resources.workers:
        raise StudyError(
            f"{path}: batch_size {study.base.batch_size} does not divide by "
            f"{study.resources.workers} workers; choose a number that divides it"
        )
    return study


def _warn(study: "Study", console: Console) -> None:
    from ablations.study.loading import lint

    for warning in lint(study):
        console.print(f"note: {warning}", markup=False, highlight=False)


@app.command()
def run(
    study: StudyArgument,
    root: RootOption = DEFAULT_ROOT,
    data: DataOption = None,
    workers: WorkersOption = None,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a study: train what is missing, then verdicts, report and MLflow.

    Runs on this machine, or on the Ray cluster at RAY_ADDRESS. Finished runs are never trained
    again: after an interruption the same command goes on where it stopped. MLflow is written to
    ROOT/mlflow.db, or to the server at MLFLOW_TRACKING_URI.
    """
    from orchestrator.driver.launch import open_root, run_study
    from orchestrator.plan import make_plan

    console = _console()
    live = console.is_terminal and not quiet
    checked = _load(study, data, workers, ablations, scale)
    root = open_root(_root(root, console))
    _warn(checked, console)
    listed = ", all in study.lock.json"
    images = _open_images(checked.base.data, root, console, live, listed=listed)
    plan = make_plan(checked, images)
    console.print(
        f"study {checked.name}: {len(checked.arms)} arms × {len(checked.seeds)} seeds = "
        f"{len(plan.trials)} runs on {len(images)} images",
        highlight=False,
    )
    try:
        result = run_study(plan, images, root, console=console, live=live)
    except KeyboardInterrupt:
        left = len(plan.missing(root / checked.name))
        console.print(
            f"interrupted: {len(plan.trials) - left} of {len(plan.trials)} runs are finished; "
            "the same command goes on from here",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None
    _show_verdicts(result, root, console)


def _show_verdicts(result: "StudyRun", root: Path, console: Console) -> NoReturn:
    """Print verdicts, failed runs and where to look; exit 0, or 3 when runs are missing."""
    from dashboards.tables.reading import judged

    verdicts_of = judged(result)
    verdicts = verdicts_of["hypotheses"]
    if verdicts_of["claims"]:
        claims = Table(title=f"Claims of study {result.lock['study']}", title_justify="left")
        for column in ("claim", "", "rule", "verdict"):
            claims.add_column(column, overflow="fold")
        for name, entry in verdicts_of["claims"].items():
            claim = entry["claim"]
            label = entry["verdict"]["label"].upper()
            claims.add_row(escape(name), escape(claim["text"]), claim["rule"], label)
        console.print(claims)
        for name, entry in verdicts_of["claims"].items():
            console.print(f"{name}: {entry['verdict']['reason']}", markup=False, highlight=False)
    table = Table(title=f"Verdicts of study {result.lock['study']}", title_justify="left")
    table.add_column("hypothesis", overflow="fold")
    for column in ("expected", "seeds", "mean difference", "interval", "p"):
        table.add_column(column, no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for name, hypothesis in result.lock["resolved"]["hypotheses"].items():
        verdict = verdicts[name]["verdict"]
        sign = "±" if hypothesis["direction"] == "holds" else "by"
        table.add_row(
            escape(name),
            f"{hypothesis['direction']} {sign} {hypothesis['smallest_effect']:g}",
            str(verdict["n"]),
            "–" if verdict["mean"] is None else f"{verdict['mean']:+.4f}",
            _interval(verdict["interval"], f"{100 * (1 - hypothesis['alpha']):.0f} %"),
            "–" if verdict["p"] is None else f"{verdict['p']:.3g}",
            " ".join([verdict["label"].upper(), *(f"({tag})" for tag in verdict["tags"])]),
        )
    if verdicts:
        console.print(table)
        for name, judged_one in verdicts.items():
            reason = judged_one["verdict"]["reason"]
            console.print(f"{name}: {reason}", markup=False, highlight=False)
    unfinished = []
    for (arm, seed), one in result.runs.items():
        if one.status != "finished":
            console.print(f"{arm} seed {seed} {one.status}: {one.reason}", markup=False)
        if one.status in ("missing", "failed"):
            unfinished.append((arm, seed))
    folder = result.folder
    console.print(f"report: {folder / 'report.html'}", markup=False, highlight=False)
    ui = "dinolab ui" if root == DEFAULT_ROOT.absolute() else f"dinolab ui --root {root}"
    if Path(sys.prefix).parent == Path.cwd():
        ui = f"{Path(sys.prefix).name}/bin/{ui}"
    console.print(f"MLflow UI: {ui}", markup=False, highlight=False)
    raise typer.Exit(INCOMPLETE if unfinished else DONE)


def _interval(ends: list[float] | None, level: str) -> str:
    return "–" if ends is None else f"{level} [{ends[0]:+.4f}, {ends[1]:+.4f}]"


@app.command()
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
            help="Estimate the time from operations, for a worker that does so many 10¹² a second, "
            "instead of timing steps here: for a study that this machine is too small for.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what `run` would do, and train nothing: arms, differences, runs, estimated time."""
    from ablations.spec import BASELINE
    from ablations.verdicts.planning import power_text
    from orchestrator.driver.launch import open_root
    from orchestrator.plan import make_plan, measure

    console = _console()
    checked = _load(study, data, workers, ablations, scale)
    root = open_root(_root(root, console))
    images = _open_images(checked.base.data, root, console, console.is_terminal)
    made = make_plan(checked, images)
    missing = made.missing(root / checked.name)

    console.print(
        f"study {checked.name}: recipe {checked.recipe}, {len(images)} images "
        f"({len(images.train)} to train, {len(images.test)} held out), "
        f"seeds {', '.join(map(str, checked.seeds))}",
        highlight=False,
    )
    console.print(_arms_table(made))
    table = Table("arm", "what else differs from the baseline", title="Confounds")
    base = made.arms[BASELINE]
    for arm, cost in made.arms.items():
        if arm != BASELINE:
            lines = "\n".join(cost.differences(base)) or "nothing that is known"
            table.add_row(escape(arm), escape(lines))
    console.print(table)
    if checked.claims:
        table = Table("claim", "", "rule", "hypotheses", title="Claims")
        for name, claim in checked.claims.items():
            table.add_row(name, escape(claim.text), claim.rule, "\n".join(claim.hypotheses))
        console.print(table)
    table = Table("hypothesis", "contrast", "end point", "expected", title="Hypotheses")
    for name, hypothesis in checked.hypotheses.items():
        since = " since step 0" if hypothesis.minus_start else ""
        table.add_row(
            name,
            escape(" − ".join(side for side in hypothesis.sides if side)),
            " against ".join(filter(None, (hypothesis.metric, hypothesis.metric_against))) + since,
            f"{hypothesis.direction}, smallest effect {hypothesis.smallest_effect:g}",
        )
    console.print(table)
    powers: dict[str, list[str]] = {}
    for name, hypothesis in checked.hypotheses.items():
        powers.setdefault(power_text(hypothesis, len(checked.seeds)), []).append(name)
    for text, names in powers.items():
        console.print(f"power: {text} ({', '.join(names)})", markup=False, highlight=False)
    _warn(checked, console)
    if tflops is not None:
        hours = made.operations(missing) / (tflops * 1e12) / 3600
        console.print(
            f"{len(made.trials)} runs, {len(made.trials) - len(missing)} finished, "
            f"{len(missing)} to train: about {hours:,.1f} worker-hours at {tflops:g} TFLOP/s a "
            f"worker, {hours / max(1, len(missing)):.2f} a run, for the operations of training "
            "steps alone",
            highlight=False,
        )
        return
    threads = checked.resources.cpus_per_worker
    concurrent = max(1, (os.cpu_count() or 1) // (checked.resources.workers * threads))
    timing = measure(checked.base, images, threads=threads)
    seconds = len(missing) * timing.trial_s(checked.base) / concurrent
    console.print(
        f"{len(made.trials)} runs, {len(made.trials) - len(missing)} finished, "
        f"{len(missing)} to train: about {seconds / 60:.1f} min on this machine, "
        f"{concurrent} at a time",
        highlight=False,
    )


def _arms_table(made: "Plan") -> Table:
    table = Table("arm", "what differs", title="Arms")
    for column in ("parameters", "GFLOPs an image", "GFLOPs a step"):
        table.add_column(column, justify="right")
    for arm, cost in made.arms.items():
        changes = [f"{k}: {cost.before[k]} → {v}" for k, v in cost.change.items()]
        cells = (
            arm, "\n".join(changes) or "the base", f"{cost.parameters:,}",
            f"{cost.gigaflops_per_image:.4g}", f"{cost.gigaflops_per_step:.4g}",
        )  # fmt: skip
        table.add_row(*(escape(cell) for cell in cells))
    return table


@app.command()
def report(
    study: Annotated[
        Path, typer.Argument(help="Study file, or the run folder of a study.", show_default=False)
    ],
    root: RootOption = DEFAULT_ROOT,
    ablations: AblationsOption = None,
    scale: ScaleOption = None,
) -> None:
    """Rebuild results, verdicts and report from a run folder; trains nothing."""
    from ablations.study.loading import load_study
    from orchestrator.driver.launch import conclude

    console = _console()
    root = _root(root, console)
    folder = (
        study if study.is_dir() else root / load_study(study, None, ablations or (), scale).name
    )
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: run the study first, or give its run folder")
    _show_verdicts(conclude(folder), folder.absolute().parent, console)


@app.command(name="list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ablations|recipes|datasets|metrics|studies|knobs", show_default=False
        ),
    ],
    ablations: AblationsOption = None,
) -> None:
    """List what can be named in a study: ablations, recipes, datasets, metrics, studies, knobs."""
    listings = {
        "ablations": lambda: _list_ablations(ablations or []),
        "recipes": _list_recipes,
        "datasets": _list_datasets,
        "metrics": _list_metrics,
        "studies": _list_studies,
        "knobs": _list_knobs,
    }
    if what not in listings:
        raise InputError(f"list {what}: no such list (allowed: {', '.join(listings)})")
    if ablations and what != "ablations":
        raise InputError(f"list {what}: --ablations belongs to `list ablations` alone")
    _console().print(listings[what]())


def _list_ablations(paths: list[Path]) -> Table:
    from ablations.library import library

    table = Table("arm", "changes", "claim", "from")
    table.columns[0].no_wrap = True
    for known in library(paths).values():
        found = known.load()
        needs = [f"(needs {knob}: {value})" for knob, value in found.base.items()]
        for arm, declared in found.arms.items():
            changes = [f"{knob}: {value}" for knob, value in declared.change.items()]
            cells = (arm, "\n".join([*changes, *needs]), found.claim, known.origin)
            table.add_row(*(escape(cell) for cell in cells))
    return table


def _list_recipes() -> Table:
    import importlib

    import ablations.recipes
    from ablations.library import names_in

    table = Table("recipe", "what it is")
    for name in names_in(ablations.recipes):
        text = importlib.import_module(f"ablations.recipes.{name}").__doc__ or ""
        table.add_row(name, escape(text.splitlines()[0]))
    return table


def _list_datasets() -> Table:
    table = Table("data set", "what it is")
    table.add_row("digits", "1,797 scanned digits, 8×8 grey, 10 labels; embedded (scikit-learn)")
    table.add_row(
        "photographs",
        "2,464 crops of 11 photographs, 48×48, which one is the label; embedded (scikit-image)",
    )
    table.add_row("PATH", "a folder of images of any sizes and modes; sub-folders are labels")
    table.add_row("DIR", "what `dinolab ingest SOURCE --out DIR` made, local or s3://, gs://")
    return table


def _list_metrics() -> Table:
    from trainers.metrics import METRICS

    table = Table("metric", "meaning")
    for name, text in METRICS.items():
        table.add_row(escape(name), escape(text))
    return table


def _list_studies() -> Table:
    import ablations.studies

    table = Table("study", "what it asks")
    for path in sorted(Path(next(iter(ablations.studies.__path__))).glob("*.yaml")):
        comments = [
            line.removeprefix("# ")
            for line in path.read_text().splitlines()
            if line.startswith("# ") and "$schema" not in line
        ]
        table.add_row(str(path), escape(comments[0] if comments else ""))
    return table


def _list_knobs() -> Table:
    from trainers.config import knobs

    table = Table("knob", "default", "allowed", "unit", "meaning (source)")
    table.columns[0].no_wrap = True
    table.columns[-1].min_width = 44
    for knob in knobs():
        allowed = knob.allowed if knob.type in ("choice", "bool") else f"{knob.type} {knob.allowed}"
        cells = (
            knob.name, str(knob.default), allowed.strip(), knob.unit,
            f"{knob.description} ({knob.source})",
        )  # fmt: skip
        table.add_row(*(escape(cell) for cell in cells))
    return table


@app.command()
def new(
    what: Annotated[str, typer.Argument(metavar="ablation", show_default=False)],
    name: Annotated[
        str, typer.Argument(help="Its name: lower-case letters, digits and _.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where NAME.py is written.")] = Path(),
) -> None:
    """Write NAME.py, an ablation of your own that works and waits to be changed.

    Use it by `--ablations NAME.py` and its name under `arms:` in a study.
    """
    from ablations.template import write_ablation

    if what != "ablation":
        raise InputError(f"new {what}: no such thing (allowed: ablation)")
    path = write_ablation(name, out)
    console = _console()
    console.print(
        f"{path}: change it, then name {name} in a study and give --ablations {path}",
        markup=False,
        highlight=False,
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from ablations.study.loading import StudyFile

    print(json.dumps(StudyFile.model_json_schema(), indent=2))


@app.command()
def train(
    recipe_name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A name from `dinolab list recipes`, or a .json or .py file."
        ),
    ],
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KNOB=VALUE",
            help="Change a knob; may be given again.",
            default_factory=list,
            show_default=False,
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Train one run of a recipe, here and now: no study, no Ray.

    The run folder is ROOT/train/trials/KEY. The same command goes on after an interruption.
    """
    from orchestrator.driver.launch import open_root
    from orchestrator.tracking.mirror import Mirror, tracking_uri
    from trainers.config import override
    from trainers.config.recipe import knobs_given, recipe
    from trainers.runs.reporters import Console as ConsoleReporter
    from trainers.runs.trial import TrialFolder, run_trial, trial_key
    from trainers.system.world import World, make_reproducible

    console = _console()
    config = override(recipe(recipe_name), knobs_given(set_))
    root = open_root(_root(root, console))
    images = _open_images(config.data, root, console, console.is_terminal)
    folder = TrialFolder(root / "train" / "trials" / trial_key(config, images.digest))
    mirror = Mirror(tracking_uri(root), "train", root)
    if folder.finished():
        console.print("finished already: nothing to train")
    make_reproducible(threads)
    try:
        run_trial(
            folder,
            config,
            images=images,
            world=World.alone(),
            reporter=ConsoleReporter(sys.stdout, steps=config.steps),
        )
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    mirror.sync(recipe_name, config.seed, folder)
    result = folder.finished() or {}
    console.print(f"{result['status']} {result['reason']}".strip(), markup=False)
    console.print(f"run folder: {folder.path}", markup=False, highlight=False)
    if result["status"] != "finished":
        raise typer.Exit(FAILED)


@app.command(name="eval")
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A state.safetensors, its folder, or the folder of a run.", show_default=False
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Measures on these images instead: `digits`, or a folder of images.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KNOB=VALUE",
            help="Change a knob of the evaluation; may be given again.",
            show_default=False,
        ),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Writes every metric.", show_default=False),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    quiet: QuietOption = False,
) -> None:
    """Measure a checkpoint: k-NN, linear and position probe, collapse panel, attention.

    Its configuration is the config.json beside it or one folder above. The table shows summaries;
    --json also writes each layer and head.
    """
    from orchestrator.driver.launch import open_root
    from trainers.config.recipe import knobs_given
    from trainers.runs.saved_run import evaluate_run, find_run
    from trainers.system.atomic import replace_json
    from trainers.system.world import World, make_reproducible

    console = _console()
    live = console.is_terminal and not quiet
    run = find_run(checkpoint, data=data, change=knobs_given(set_ or []))
    if json_ is not None and not json_.absolute().parent.is_dir():
        raise InputError(f"--json {json_}: there is no folder {json_.absolute().parent}")
    root = open_root(_root(root, console))
    images = _open_images(run.measured.data, root, console, live)
    device = World.alone().device
    make_reproducible(threads)
    console.print(
        f"step {run.step} of {run.trained.steps}, {run.measured.data.source}: {len(images)} "
        f"images, {len(images.test)} held out, on {device.type}",
        markup=False,
        highlight=False,
    )
    with Progress(console=console, transient=True, disable=not live) as progress:
        task = progress.add_task("measuring images", total=None)
        metrics = evaluate_run(
            run,
            images,
            device,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    _show_metrics(metrics, console)
    if json_ is not None:
        content = {
            "checkpoint": str(run.checkpoint.absolute()),
            "step": run.step,
            "data": {"source": run.measured.data.source, "digest": images.digest},
            "evaluation": run.measured.evaluation.model_dump(mode="json"),
            "metrics": metrics,
        }
        replace_json(json_, content)
        console.print(f"metrics: {json_}", markup=False, highlight=False)


@app.command()
def measure(
    model: Annotated[
        str,
        typer.Argument(
            help="A checkpoint or run folder of dinolab; a file of weights under timm or official "
            "DINO names; a Hugging Face folder (vit, deit, dinov2, dinov2_with_registers); or the "
            "name of a timm ViT (vit_tiny_patch16_224).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for report.html, figures, metrics.parquet and summary.json: new or empty.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="`digits`, `photographs`, a folder of images, or what `dinolab ingest` made; a "
            "checkpoint of dinolab knows its own.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Images, the first in an order keyed by their names.")
    ] = 256,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images, pixels, a multiple of the patch; the model's own if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="State of the timm model that is named (.safetensors, .pth).",
            show_default=False,
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Downloads timm's published weights.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Of random weights, shuffled patches and probes."),
    ] = 0,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="7,8",
            help="Primary layers, blocks from 1; the last third without the final block if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    causal_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Images for influence and gradient reach, which cost a pass for each patch; 0: "
            "neither.",
        ),
    ] = 16,
    patch_queries: Annotated[
        int, typer.Option(min=1, help="Patch queries measured on grids of more than 196 patches.")
    ] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a pass.")] = 16,
    memory: Annotated[
        float, typer.Option(min=0.1, max=2**20, help="Attention weights held at once, MiB.")
    ] = 64.0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; all CPUs if not given.", show_default=False),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    quiet: QuietOption = False,
) -> None:
    """Measure how globally any ViT attends: attention, rollout, influence, gradient reach.

    Attention of [CLS], registers and patches, relative to uniform attention, with controls. Works
    in memory linear in tokens, with fused attention as it is. After an interruption nothing is
    left in DIR.
    """
    # Threads that wait must sleep: spinning, they stop each other where CPUs are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dashboards.measurement.report import check_folder, write_measurement
    from orchestrator.cli import measuring
    from trainers.adapters.measurable import open_measurable
    from trainers.globality.measurement import measure as measured

    console = _console()
    live = console.is_terminal and not quiet
    out = out.expanduser()
    check_folder(out)
    chosen = measuring.device_named(device)
    if threads is not None:
        measuring.use_threads(threads)
    opened = open_measurable(model, weights=weights, published=pretrained, seed=seed)
    source = measuring.images_wanted(opened, data, size)
    images = _open_images(source, _root(root, console), console, live)
    plan = measuring.plan(
        opened,
        images,
        source,
        limit=limit,
        size=size,
        layers=layers,
        batch_size=batch_size,
        memory=memory,
        patch_queries=patch_queries,
        causal_images=causal_images,
        seed=seed,
    )
    try:
        measuring.introduce(opened, plan, source, chosen, console)
        with Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not live,
        ) as progress:
            task = progress.add_task("measuring, passes", total=None)

            def show(done: int, total: int) -> None:
                interrupt.check()
                progress.update(task, completed=done, total=total)

            found = measured(opened, images, plan, chosen, show)
            progress.update(task, description="drawing figures")
            facts = measuring.facts(model, opened, plan, source, images, chosen)
            write_measurement(out, opened, plan, found, facts=facts, check=interrupt.check)
    except KeyboardInterrupt:
        console.print("interrupted: nothing was written", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    measuring.show_measurement(opened, plan, found, console)
    console.print(f"report: {out / 'report.html'}", markup=False, highlight=False)


def _show_metrics(metrics: dict[str, float], console: Console) -> None:
    """Print the metrics of a network as a whole, in the order in which they are described."""
    from trainers.metrics import EVALUATED

    table = Table("metric", "value", "meaning")
    for name, meaning in EVALUATED.items():
        if name in metrics:
            table.add_row(escape(name), f"{metrics[name]:.4f}", escape(meaning))
    console.print(table)


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images (sub-folders are labels; train/ val/ test/ above them are "
            "splits), a parquet or Arrow file with image bytes, a folder or a 'pattern*' of such "
            "files, torchvision:NAME[:FOLDER], hf:NAME[:CONFIG]; local, or s3://, gs://.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder of the data set: a path, s3:// or gs://.",
            show_default=False,
        ),
    ],
    quiet: QuietOption = False,
) -> None:
    """Turn images from anywhere into one indexed data set in DIR, and print its digest.

    Use it as `--data DIR`, or as `dataset:` in a study. Broken images are left out and listed with
    reasons in DIR/skipped.parquet, images of equal bytes in DIR/duplicates.parquet. After an
    interruption the same command goes on where it stopped.
    """
    from trainers.data import arrow
    from trainers.data import ingest as ingesting
    from trainers.data.sources.grammar import open_source
    from trainers.system.storage import locate, printable

    console = _console()
    home = locate(out)
    opened = open_source(source)
    console.print(f"{printable(opened.name)}: {len(opened)} items", markup=False, highlight=False)
    finished = 0
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as progress:
        task = progress.add_task("ingesting", total=len(opened))

        def show(done: int, total: int) -> None:
            nonlocal finished
            finished = done
            interrupt.check()
            progress.update(task, completed=done, total=total)

        try:
            manifest = ingesting.ingest(opened, home, show)
        except KeyboardInterrupt:
            progress.stop()
            console.print(
                f"interrupted at {finished} of {len(opened)} items: the same command goes on "
                f"from the last whole part in {home.shown}",
                markup=False,
                highlight=False,
            )
            raise typer.Exit(INTERRUPTED) from None
    if not finished and len(opened):
        console.print(f"{home.shown} is finished already", markup=False, highlight=False)
    splits = ", ".join(f"{name or 'no split'} {n}" for name, n in manifest.splits.items())
    console.print(
        f"{manifest.images} images ({splits}), {len(manifest.classes)} labels, "
        f"{manifest.skipped} skipped, {manifest.duplicates} duplicates",
        markup=False,
        highlight=False,
    )
    for name, title in (
        (arrow.SKIPPED, "Skipped: cannot be decoded"),
        (arrow.DUPLICATES, "Duplicates: equal bytes (all are kept)"),
    ):
        _show_rows(home / name, title, console)
    print(manifest.digest)


def _show_rows(place: "Location", title: str, console: Console, most: int = 20) -> None:
    """The first rows of a parquet table, and where all of them are; nothing when it has none."""
    from trainers.data.arrow import read_table
    from trainers.system.storage import printable

    rows = read_table(place)
    if not len(rows):
        return
    table = Table(*rows.column_names, title=title, title_justify="left")
    for row in rows.slice(0, most).to_pylist():
        table.add_row(*(escape(printable(str(value))) for value in row.values()))
    console.print(table)
    console.print(f"{len(rows)} rows in {place.shown}", markup=False, highlight=False)


@app.command()
def ui(
    root: RootOption = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the store of a run root; Ctrl-C ends it."""
    from orchestrator.tracking.mirror import tracking_uri

    console = _console()
    root = _root(root, console)
    if "MLFLOW_TRACKING_URI" not in os.environ and not (root / "mlflow.db").exists():
        raise InputError(f"{root} has no MLflow store yet: run a study first, or give --root")
    console.print(f"MLflow UI at http://127.0.0.1:{port} (Ctrl-C ends it)")
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(root)]
    arguments += ["--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])


def main() -> NoReturn:
    """Run the command line; every DinolabError is a line on standard error, not a traceback."""
    interrupt.listen()
    try:
        app(prog_name="dinolab")
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    except DinolabError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
