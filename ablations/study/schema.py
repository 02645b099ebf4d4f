"""The fields of a study file."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ablations.spec import Claim, Declared, Gate, Hypothesis

Change = dict[str, Any]


class Resources(Declared):
    """What one trial is given."""

    workers: Annotated[int, Field(ge=1)] = Field(1, description="processes that train one model")
    cpus_per_worker: Annotated[int, Field(ge=1)] = Field(1, description="CPU threads of a worker")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto: one GPU a worker where the cluster has GPUs, else CPU"
    )


class Scale(Declared):
    """What one size of a study has in place of the file's own."""

    recipe: str = Field("", description="base recipe; empty: the file's own")
    dataset: str = Field("", description="data set; empty: the file's own")
    set: Change = Field({}, description="knobs changed in every arm, over those of the file")
    seeds: int = Field(0, ge=0, description="how many; 0: the file's own")
    resources: Resources = Resources()


class StudyFile(Declared):
    """The fields of a study file."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of the study and of its run folder"
    )
    recipe: str = Field(description="base recipe, see `dinolab list recipes`")
    dataset: str = Field(
        "digits",
        description="`digits`, `photographs`, or the path of a folder of images (its sub-folders "
        "are the labels)",
    )
    set: Change = Field({}, description="knobs changed in every arm, the baseline included")
    seeds: int | list[Annotated[int, Field(ge=0)]] = Field(
        description="how many (0, 1, 2, ...), or a list; arms are paired by seed"
    )
    arms: list[str | dict[str, Change]] = Field(
        [], description="names from `dinolab list ablations`, or `name: {knob: value}`"
    )
    factorial: list[list[str | dict[str, Change]]] = Field(
        [],
        description="factors, each a list of levels: `baseline` first, then as in `arms`; every "
        "combination is an arm, its name the levels joined by +",
    )
    hypotheses: dict[str, Hypothesis] = Field(
        {}, description="what is expected, by name; empty: what the catalogue's arms expect"
    )
    claims: dict[str, Claim] = Field({}, description="what hypotheses decide together, by name")
    gates: dict[str, Gate] = Field({}, description="what must hold in an arm for it to count")
    resources: Resources = Resources()
    scales: dict[str, Scale] = Field(
        {}, description="sizes of the same study; `--scale NAME` chooses one"
    )

    @field_validator("seeds")
    @classmethod
    def _some_distinct_seeds(cls, seeds: int | list[int]) -> int | list[int]:
        listed = list(range(seeds)) if isinstance(seeds, int) else seeds
        if not listed or len(set(listed)) < len(listed):
            raise ValueError("must be 1 or more, each seed once")
        return seeds
