"""Numbers that papers print, as files: which network, which metric of ours, how near is near."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import dashboards.papers
from trainers.config import nearest
from trainers.config.explain import explain
from trainers.errors import InputError, printable
from trainers.globality import alignment, flows, geometry, replaced, sinks
from trainers.globality.by_image import CONTRASTS
from trainers.globality.descriptions import BY_LAYER, DESCRIPTIONS
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import DESCRIPTIONS as OF_NETWORKS

KNN = "knn/cls_top1"
"""The one metric that takes labelled images, and no attention."""

FINAL = "/final_block"

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")

KNOWN = {
    *(name for name in DESCRIPTIONS if not name.startswith("student/")),
    *OF_NETWORKS,
    *alignment.DESCRIPTIONS,
    *(f"{name}{FINAL}" for name in OF_NETWORKS if not name.startswith(f"{replaced.GROUP}/")),
}
"""Metrics that `dinolab measure` gives."""

OF_BLOCKS = {
    *alignment.DESCRIPTIONS,
    *(
        name
        for name in KNOWN
        for group, token, *measure in [name.split("/")]
        if group in (*BY_LAYER, flows.GROUP, geometry.GROUP, sinks.GROUP)
        and token not in CONTRASTS.values()
        and len(measure) == 1
        and measure != ["undefined"]
    ),
}
"""Those that it gives of each block."""

ALIKE = 1.2
"""How many times as many parameters another network has at least: heads and sizes of images alone
make less of a difference."""

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Strict):
    """A network of a paper: where its weights are, and how it can be told from others."""

    timm: Text | None = None
    """what it is called there"""
    weights: Text | None = None
    """where they are, if not in timm"""
    blocks: Annotated[int, Field(ge=1)]
    patch: Annotated[int, Field(ge=1)]
    """pixels a side"""
    million_parameters: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    registers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> "Network":
        if (self.timm is None) == (self.weights is None):
            raise ValueError("give timm, its name there, or weights, where they are")
        return self

    @property
    def found_at(self) -> str:
        """Where its weights are."""
        return self.timm or str(self.weights)


class Value(_Strict):
    """One number of each of some networks."""

    what: Text
    metric: Text
    """of `KNOWN`, or of `OF_BLOCKS` followed by `@` and a block, from 1: the mean of its heads"""
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """absolute; how far apart other images may put the two"""
    published: Annotated[
        dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)
    ]
    """by network"""


class Paper(_Strict):
    """What a paper prints. Read from a YAML file; adding a paper is adding one."""

    title: Text
    authors: Text
    year: int
    source: Text
    images: Text
    """which it measured"""
    size: Annotated[int, Field(ge=1)]
    """pixels a side"""
    models: Annotated[dict[str, Network], Field(min_length=1)]
    values: Annotated[list[Value], Field(min_length=1)]
    notes: list[str] = []
    """what is not as in the paper, or not known of it"""

    @model_validator(mode="after")
    def _check(self) -> "Paper":
        for name, network in self.models.items():
            if self.size % network.patch:
                raise ValueError(
                    f"size {self.size} is no multiple of the patch of {name}, {network.patch}"
                )
        for value in self.values:
            metric, at, block = value.metric.partition("@")
            allowed = OF_BLOCKS if at else {*KNOWN, KNN}
            if metric not in allowed:
                what = "block" if at else "network"
                raise ValueError(
                    f"metric {value.metric} is none that is measured of a {what}"
                    f"{nearest(metric, sorted(allowed))}"
                )
            for name in value.published:
                if name not in self.models:
                    raise ValueError(
                        f"{value.what}: {name} is none of the models ({', '.join(self.models)})"
                    )
                blocks = self.models[name].blocks
                if at and not (_NUMBER.fullmatch(block) and int(block) <= blocks):
                    raise ValueError(
                        f"metric {value.metric}: the blocks of {name} are 1 to {blocks}"
                    )
        return self


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One published number and what was measured: None where no network was given."""

    model: str
    what: str
    metric: str
    published: float
    tolerance: float
    measured: float | None

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.measured is None else self.measured - self.published

    @property
    def within(self) -> bool | None:
        """Whether they are no further apart than the tolerance."""
        return None if self.difference is None else abs(self.difference) <= self.tolerance


def packaged_papers() -> dict[str, Path]:
    """The papers that come with dinolab, by name, sorted."""
    return {
        path.stem: path
        for home in dashboards.papers.__path__
        for path in sorted(Path(home).glob("*.yaml"))
    }


def read_paper(given: str) -> Paper:
    """The packaged paper of that name, or that of a YAML file.

    Raises InputError, a line for each fault.
    """
    known = packaged_papers()
    # A Path raises for an unknown ~name.
    path = known.get(given, Path(os.path.expanduser(given)))  # noqa: PTH111
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise InputError(
            f"paper {printable(given)} cannot be read: {reason}{nearest(given, known)} "
            f"(allowed: {', '.join(known)}, or a YAML file)"
        ) from None
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise InputError(f"paper {printable(given)} is no YAML: {printable(where)}") from None
    try:
        return Paper.model_validate(content)
    except ValidationError as error:
        lines = [f"paper {printable(given)}: {printable(line)}" for line in explain(error)]
        raise InputError("\n".join(lines)) from None


def check_network(name: str, wanted: Network, opened: Measurable) -> None:
    """Raise InputError, one line, when the opened network is none such as the paper's."""
    found = {
        "blocks": opened.depth,
        "pixels a patch": opened.patch_size,
        "registers": opened.registers,
    }
    asked = dict(zip(found, (wanted.blocks, wanted.patch, wanted.registers), strict=True))
    millions = opened.parameters / 1e6
    sizes = sorted((millions, wanted.million_parameters))
    if found != asked or not opened.has_cls or sizes[1] >= ALIKE * sizes[0]:
        shown, other = (
            ", ".join(f"{number} {what}" for what, number in one.items())
            + f", {parameters:.4g} M parameters"
            for one, parameters in ((found, millions), (asked, wanted.million_parameters))
        )
        raise InputError(
            f"--model {name}: {opened.name} has {shown}{'' if opened.has_cls else ', no [CLS]'}; "
            f"the paper's ({wanted.found_at}) has {other}"
        )
    if opened.is_random:
        raise InputError(
            f"--model {name}: {opened.name} has random weights; give trained ones"
            f"{', or --pretrained' if wanted.timm else f': {wanted.weights}'}"
        )


def value_of(metric: str, measured: Mapping[str, float]) -> float:
    """A paper's metric among what was measured of a network; NaN where it has no value.

    Of a block that has heads it is the mean over those that have one.
    """
    if metric in measured:
        return measured[metric]
    heads = [value for name, value in measured.items() if name.startswith(f"{metric}.")]
    return math.fsum(heads) / len(heads) if heads else math.nan


def compared(paper: Paper, found: Mapping[str, Mapping[str, float]]) -> list[Compared]:
    """Every number of the paper beside what was `found` of its networks, by name and metric."""
    return [
        Compared(
            model=model,
            what=value.what,
            metric=value.metric,
            published=published,
            tolerance=value.tolerance,
            measured=found.get(model, {}).get(value.metric),
        )
        for value in paper.values
        for model, published in value.published.items()
    ]
