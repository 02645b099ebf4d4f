"""The values that files for clusters are written from, and which file reads which of them."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainers.errors import InputError, printable


class Kind(StrEnum):
    """What `dinolab deploy` writes, each named after what reads it."""

    RAY_ON_PREMISES = "ray-on-premises"
    RAY_AWS = "ray-aws"
    KUBERAY_JOB = "kuberay-job"
    KUBERAY_CLUSTER = "kuberay-cluster"
    KUEUE = "kueue"
    SLURM = "slurm"
    SLURM_SRUN = "slurm-srun"
    SKYPILOT = "skypilot"
    CONTAINER = "container"


_SIZE = frozenset({"nodes", "gpus", "cpus", "memory"})

READS: dict[Kind, frozenset[str]] = {
    Kind.RAY_ON_PREMISES: frozenset({"hosts", "user", "gpus", "cpus", "root", "image"}),
    Kind.RAY_AWS: frozenset(
        {"nodes", "gpus", "accelerator", "machine_image", "region", "root", "image"}
    ),
    Kind.KUBERAY_JOB: _SIZE | {"root", "study", "image", "hours", "secret", "claim", "queue"},
    Kind.KUBERAY_CLUSTER: _SIZE | {"root", "image", "secret", "claim", "queue"},
    Kind.KUEUE: _SIZE | {"queue"},
    Kind.SLURM: _SIZE | {"root", "study", "hours"},
    Kind.SLURM_SRUN: _SIZE | {"root", "study", "hours"},
    Kind.SKYPILOT: _SIZE | {"accelerator", "root", "study", "environment"},
    Kind.CONTAINER: frozenset(),
}
"""the values that each file depends on; any other that is given is an error"""

NEEDS: dict[Kind, frozenset[str]] = {
    Kind.RAY_ON_PREMISES: frozenset({"hosts"}),
    Kind.RAY_AWS: frozenset({"machine_image"}),
}
"""the values that have no default"""

MOST_GPUS = 16
CPUS_OF_GPU, MEMORY_OF_GPU = 8, 32
"""what a machine has, where nothing is said: for each GPU, and without any"""

SHARED_FOLDER = "/shared/runs"
"""run root where none is given; machines of a cloud share none"""

AWS_INSTANCES = {
    ("", 0): "m7i.4xlarge",
    ("L4", 1): "g6.4xlarge",
    ("L4", 4): "g6.12xlarge",
    ("L4", 8): "g6.48xlarge",
    ("A100", 8): "p4d.24xlarge",
    ("H100", 8): "p5.48xlarge",
}
"""EC2 instance type by accelerator and how many of them"""

_SHARED_BY_ALL = "an object store as s3://BUCKET/PREFIX, gs://… or az://…"
_BUCKETS_ONLY = (Kind.RAY_AWS, Kind.SKYPILOT)
# A DNS label, which is what Kubernetes takes for most of its names.
_LABEL = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_HOST = r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$"

Label = Annotated[str, Field(pattern=_LABEL, max_length=50)]
Host = Annotated[str, Field(pattern=_HOST, max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]


class Values(BaseModel):
    """What a file is written from. Counts are per node; memory is in GiB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    nodes: int = Field(2, ge=1, le=1000)
    gpus: int = Field(0, ge=0, le=MOST_GPUS)
    cpus: int = Field(ge=1, le=480)
    memory: int = Field(ge=4, le=16384)
    root: str = Field("", max_length=1000)
    study: str = Field("demo", min_length=1, max_length=1000)
    image: str = Field("dinolab", pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$", max_length=500)
    hours: int = Field(24, ge=1, le=720)
    hosts: tuple[Host, ...] = ()
    user: str = Field("ubuntu", pattern=r"^[a-z_][a-z0-9_-]*$", max_length=32)
    region: str = Field("us-west-2", pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    machine_image: str = Field("", pattern=r"^(ami-[0-9a-f]{8,17})?$")
    accelerator: str = Field("L4", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$", max_length=50)
    secret: Label | None = None
    claim: Label = "dinolab-runs"
    queue: Label | None = None
    environment: tuple[Variable, ...] = ()

    @field_validator("root", "study")
    @classmethod
    def _is_one_line(cls, given: str) -> str:
        # A file of YAML or shell has places where no quoting helps against a new line.
        if not given.isprintable():
            raise ValueError("must be one line of printable characters")
        if given.startswith("-"):
            raise ValueError("must not begin with -, which commands take for an option")
        return given

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        for name in sorted(NEEDS.get(self.kind, ())):
            if not getattr(self, name):
                raise ValueError(f"{self.kind} needs {option(name)}")
        if "root" in READS[self.kind]:
            self._check_root()
        if self.kind is Kind.KUBERAY_JOB and not re.fullmatch(r"[\w./=@%+,:-]+", self.study):
            raise ValueError(
                f"--study {printable(self.study)!r}: KubeRay hands it through two shells, so it "
                "may hold letters, digits and . / = @ % + , : _ - only"
            )
        if self.kind is Kind.RAY_AWS and self.instance_type is None:
            known = ", ".join(f"{n} {name}" for name, n in AWS_INSTANCES if n)
            raise ValueError(
                f"no EC2 instance type is known with {self.gpus} {self.accelerator}; "
                f"--gpus and --accelerator may be 0, {known}"
            )
        return self

    def _check_root(self) -> None:
        if self.is_bucket:
            return
        if self.kind in _BUCKETS_ONLY:
            raise ValueError(
                f"--root {printable(self.root)!r}: {self.kind} machines share no folder; give "
                f"{_SHARED_BY_ALL}"
            )
        if not re.fullmatch(r"/[^:]+", self.root):
            raise ValueError(
                f"--root {printable(self.root)!r} must be {_SHARED_BY_ALL}, or the absolute path "
                "of a folder that all machines share, without `:`"
            )

    @property
    def is_bucket(self) -> bool:
        """Whether the run root is an object store; else it is a folder."""
        return bool(re.fullmatch(r"(s3|gs|az)://[^/@]+(/.*)?", self.root))

    @property
    def instance_type(self) -> str | None:
        """EC2 instance type of a node; None where none is known."""
        return AWS_INSTANCES.get((self.accelerator if self.gpus else "", self.gpus))


def option(name: str) -> str:
    """How a value is named on the command line."""
    names = {"hosts": "--host", "environment": "--env"}
    return names.get(name, "--" + name.replace("_", "-"))


def values_of(kind: Kind, given: Mapping[str, object]) -> Values:
    """The values of a file, defaults where nothing is `given`.

    Raises InputError, one line, for a value that is out of its range or that `kind` does not read.
    """
    if unread := sorted(given.keys() - READS[kind]):
        read = ", ".join(sorted(map(option, READS[kind]))) or "no options"
        raise InputError(f"{kind} does not read {option(unread[0])}; it reads {read}")
    defaults: dict[str, object] = {"kind": kind}
    gpus = given.get("gpus")
    shares = max(1, gpus) if isinstance(gpus, int) and gpus <= MOST_GPUS else 1
    defaults |= {"cpus": CPUS_OF_GPU * shares, "memory": MEMORY_OF_GPU * shares}
    if "root" in READS[kind] and kind not in _BUCKETS_ONLY:
        defaults["root"] = SHARED_FOLDER
    try:
        return Values.model_validate(defaults | dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            shown = printable(str(first["input"]))
            text = f"{option(str(first['loc'][0]))} {shown!r}: {text[0].lower()}{text[1:]}"
        raise InputError(f"dinolab deploy {text}") from None
