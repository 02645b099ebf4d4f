"""The file of a kind, from its template and checked values."""

import importlib.metadata
import json
import shlex
from pathlib import Path

import jinja2

from orchestrator.deploy.values import Kind, Values
from trainers.errors import InputError

_TEMPLATES = Path(__file__).parent / "templates"

FILES = {
    Kind.RAY_ON_PREMISES: "ray-on-premises.yaml.jinja",
    Kind.RAY_AWS: "ray-aws.yaml.jinja",
    Kind.KUBERAY_JOB: "kuberay-job.yaml.jinja",
    Kind.KUBERAY_CLUSTER: "kuberay-cluster.yaml.jinja",
    Kind.KUEUE: "kueue.yaml.jinja",
    Kind.SLURM: "slurm.sh.jinja",
    Kind.SLURM_SRUN: "slurm-srun.sh.jinja",
    Kind.SKYPILOT: "skypilot.yaml.jinja",
    Kind.CONTAINER: "Containerfile.jinja",
}


def yaml_text(value: str) -> str:
    """A string of YAML with that value: JSON's strings are some, but for surrogate pairs."""
    return json.dumps(value, ensure_ascii=False)


def kubernetes_text(value: str) -> str:
    """The same where Kubernetes replaces `$(NAME)`, and two dollars by one."""
    return yaml_text(value.replace("$", "$$"))


def rendered(values: Values) -> str:
    """The text of the file, with a new line at its end.

    Every string of `values` that a template sets in is quoted for where it stands. Raises
    InputError where Ray, whose version the files for KubeRay name, is not installed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        # Quoted by the filters instead: this is no HTML.
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": yaml_text, "kubernetes": kubernetes_text, "shell": shlex.quote}
    template = environment.get_template(FILES[values.kind])
    return template.render(values=values, ray_version=_ray_version())


def _ray_version() -> str:
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            'dinolab deploy needs Ray, whose version it writes: pip install "dinolab[orchestrator]"'
        ) from None
