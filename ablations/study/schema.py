"""The fields of a study file."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ablations.design import Spending
from ablations.spec import LONGEST_NAME, Claim, Declared, Gate, Hypothesis, Multiplicity
from trainers.config.data import EMBEDDED_NAMES

Change = dict[str, Any]

MOST_ARMS = 1000

FORMS = ("<name>", "<inline>", "<number>", "<list>", "<arms>", "<weights>")
"""What values of several forms are taken for, as pydantic puts it into the place of an error."""

NOT_A_STUDYS = ("train", "mlflow-artifacts", "data")
"""Folders of a run root that hold something else."""

MOST_RUNS = 100_000
"""Arms times seeds."""


def _form_of_arm(arm: Any) -> str | None:
    if isinstance(arm, str):
        return "<name>"
    is_inline = isinstance(arm, dict) and all(isinstance(one, dict) for one in arm.values())
    return "<inline>" if is_inline else None


DeclaredArm = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[dict[str, Change], Tag("<inline>")],
    Discriminator(
        _form_of_arm,
        custom_error_type="arm",
        custom_error_message="must be a catalogue name or `name: {knob: value}`",
    ),
]


def _form_of_seeds(seeds: Any) -> str | None:
    return {int: "<number>", list: "<list>"}.get(type(seeds))


Seeds = Annotated[
    Annotated[int, Tag("<number>")]
    | Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Tag("<list>")],
    Discriminator(
        _form_of_seeds,
        custom_error_type="seeds",
        custom_error_message="must be how many, or a list of them",
    ),
]


_LABEL_NAME = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_LABEL_VALUE = r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
"""What Ray takes as the name and the value of a label."""


class Resources(Declared):
    """What one trial is given."""

    workers: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1, description="processes that train one model"
    )
    most_workers: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="as many as this where there is room, `workers` where there is less: of the "
        "numbers that divide batch_size; 0: always `workers`",
    )
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK",
        description="on which machines the workers of one trial lie: PACK, on as few as can be; "
        "SPREAD, on as many as can be; STRICT_PACK, on one; STRICT_SPREAD, each on another",
    )
    cpus_per_worker: Annotated[int, Field(ge=1, le=10_000)] = Field(
        1, description="CPU threads of a worker"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto: GPUs where the cluster has some, else CPU"
    )
    gpus_per_worker: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a GPU that a worker gets where it trains on one: with 0.25 four "
        "trials of one worker run on each GPU at once",
    )
    memory_per_worker_gib: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="GiB of main memory that a machine must have free for a worker; 0: not asked",
    )
    node_labels: dict[
        Annotated[str, Field(pattern=_LABEL_NAME)], Annotated[str, Field(pattern=_LABEL_VALUE)]
    ] = Field(
        {},
        description="labels that a machine must have, as Ray knows them, such as "
        "`ray.io/accelerator-type: H100`; those of your own are given to `ray start --labels`",
    )
    time_limit_s: float = Field(
        0.0,
        ge=0,
        le=10_000_000,
        description="seconds after which an attempt at a trial is ended and counted as failed; it "
        "goes on from its last checkpoint until its attempts are used up; 0: no limit",
    )
    move_stragglers: bool = Field(
        False,
        description="whether a run that is twice as slow as others of its arm saves, and goes on "
        "on another machine where one is free; it is said in any case",
    )

    @model_validator(mode="after")
    def _at_least(self) -> Self:
        if self.most_workers and self.most_workers < self.workers:
            raise ValueError(
                f"most_workers {self.most_workers} is less than workers {self.workers}"
            )
        if self.is_elastic and self.placement_strategy.startswith("STRICT"):
            raise ValueError(
                f"most_workers goes with PACK or SPREAD, and not with {self.placement_strategy}"
            )
        return self

    @property
    def at_most(self) -> int:
        """Workers of a trial, where there is room for as many as it may have."""
        return max(self.workers, self.most_workers)

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows what there is."""
        return self.at_most > self.workers


class Scale(Declared):
    """What one size of a study has in place of the file's own."""

    recipe: str = Field("", description="base recipe; empty: the file's own")
    dataset: str = Field("", description="data set; empty: the file's own")
    set: Change = Field({}, description="knobs changed in every arm, over those of the file")
    seeds: int = Field(0, ge=0, description="how many; 0: the file's own")
    looks: list[int] = Field([], description="empty: the file's own")
    resources: Resources = Resources()


class StudyFile(Declared):
    """The fields of a study file."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        max_length=LONGEST_NAME,
        description="name of the study and of its run folder",
    )
    recipe: str = Field(description="base recipe, see `dinolab list recipes`")
    dataset: str = Field(
        "",
        description=f"{EMBEDDED_NAMES}, or the path of a folder of images (its sub-folders are the "
        "labels); empty: the recipe's own",
    )
    set: Change = Field({}, description="knobs changed in every arm, the baseline included")
    seeds: Seeds = Field(description="how many (0, 1, 2, ...), or a list; arms are paired by seed")
    arms: list[DeclaredArm] = Field(
        [],
        description="names from `dinolab list ablations`, or `name: {knob: value}`; `baseline` "
        "may stand first, and is there anyway",
    )
    factorial: list[list[DeclaredArm]] = Field(
        [],
        description="factors, each a list of levels: `baseline` first, then as in `arms`; every "
        "combination is an arm, its name the levels joined by +",
    )
    hypotheses: dict[str, Hypothesis] = Field(
        {}, description="what is expected, by name; empty: what the catalogue's arms expect"
    )
    claims: dict[str, Claim] = Field({}, description="what hypotheses decide together, by name")
    multiplicity: Multiplicity = Multiplicity()
    gates: dict[str, Gate] = Field({}, description="what must hold in an arm for it to count")
    looks: list[int] = Field(
        [],
        description="numbers of seeds, ascending, the last all of them, at which hypotheses are "
        "looked at: what is decided at a look needs no more runs; empty: at all seeds, once",
    )
    spending: Spending | None = Field(
        None,
        description="how alpha is spent over `looks`: obf, O'Brien and Fleming, little at early "
        "ones; pocock, alike; e-process: a look after every seed, without `looks`",
    )
    futility: Literal["", "equivalence"] = Field(
        "",
        description="equivalence: a hypothesis that predicts a difference is decided, too, at a "
        "look that shows that there is none of its smallest effect; empty: it goes on",
    )
    resources: Resources = Resources()
    scales: dict[str, Scale] = Field(
        {}, description="sizes of the same study; `--scale NAME` chooses one"
    )

    @field_validator("name")
    @classmethod
    def _has_a_folder_of_its_own(cls, name: str) -> str:
        if name in NOT_A_STUDYS:
            raise ValueError(
                f"{name} is a folder of the run root that holds something else; choose another"
            )
        return name

    @field_validator("seeds")
    @classmethod
    def _some_distinct_seeds(cls, seeds: int | list[int]) -> int | list[int]:
        number = seeds if isinstance(seeds, int) else len(seeds)
        if (
            not 1 <= number <= MOST_RUNS
            or len({*seeds} if isinstance(seeds, list) else range(seeds)) < number
        ):
            raise ValueError(f"must be 1 or more, each seed once, {MOST_RUNS:,} at most")
        return seeds
