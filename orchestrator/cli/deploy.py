"""The command deploy: files that bring a study onto a cluster."""

import sys
from typing import Annotated, Any

import typer

from orchestrator.deploy.values import Kind


def _given(help_: str, metavar: str | None = None, *names: str) -> Any:
    return typer.Option(*names, help=help_, metavar=metavar, show_default=False)


def deploy(
    kind: Annotated[Kind, typer.Argument(help="What is to read the file.", show_default=False)],
    nodes: Annotated[int | None, _given("Machines; 2 if not given.")] = None,
    gpus: Annotated[int | None, _given("GPUs of a machine; 0 if not given.")] = None,
    cpus: Annotated[int | None, _given("CPUs of a machine; 8 for each GPU if not given.")] = None,
    memory: Annotated[int | None, _given("GiB of a machine; 32 for each GPU if not given.")] = None,
    root: Annotated[
        str | None,
        _given("Run root that all machines see: a path, or s3://, gs://, az://.", "PATH"),
    ] = None,
    study: Annotated[
        str | None, _given("Study to run there: a name, or a file as the machines see it.")
    ] = None,
    image: Annotated[str | None, _given("Container image with dinolab.")] = None,
    hours: Annotated[int | None, _given("When the job is ended; 24 if not given.")] = None,
    host: Annotated[
        list[str] | None,
        _given("A machine of yours, again for each; the first is the head.", "ADDRESS"),
    ] = None,
    user: Annotated[str | None, _given("Who logs in there by ssh.")] = None,
    region: Annotated[str | None, _given("AWS region.")] = None,
    machine_image: Annotated[
        str | None, _given("AMI of the region with Docker, and with a driver for GPUs.", "AMI")
    ] = None,
    accelerator: Annotated[str | None, _given("Name of the GPUs; L4 if not given.")] = None,
    secret: Annotated[
        str | None,
        _given("Kubernetes Secret whose keys become environment variables of the pods.", "NAME"),
    ] = None,
    claim: Annotated[
        str | None, _given("Kubernetes volume claim that holds a run root that is a path.", "NAME")
    ] = None,
    queue: Annotated[str | None, _given("Kueue queue.", "NAME")] = None,
    env: Annotated[
        list[str] | None,
        _given("Environment variable to pass on, by its name; may be given again.", "NAME"),
    ] = None,
) -> None:
    """Print the file that brings a study onto a cluster, or the cluster up, and nothing else.

    Each kind reads some of the options and refuses the others. No secret gets into a file.
    """
    from orchestrator.deploy.rendering import rendered
    from orchestrator.deploy.values import values_of

    given = {
        "nodes": nodes, "gpus": gpus, "cpus": cpus, "memory": memory, "root": root,
        "study": study, "image": image, "hours": hours, "hosts": host, "user": user,
        "region": region, "machine_image": machine_image, "accelerator": accelerator,
        "secret": secret, "claim": claim, "queue": queue, "environment": env,
    }  # fmt: skip
    # An option that is not given is None, or an empty list.
    chosen = {name: value for name, value in given.items() if value is not None and value != []}
    sys.stdout.write(rendered(values_of(kind, chosen)))
