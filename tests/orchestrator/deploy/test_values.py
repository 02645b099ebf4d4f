"""Which values a file may be written from, and that each of them gets into it."""

import pytest

from orchestrator.deploy.values import READS, Kind, Values, option, values_of
from tests.orchestrator.deploy.conftest import LEAST, written
from trainers.errors import InputError

OTHER = {
    "nodes": 3, "gpus": 8, "cpus": 5, "memory": 77, "root": "gs://elsewhere/runs",
    "study": "another", "image": "mine:1", "hours": 3, "hosts": ["a", "b", "c"], "user": "somebody",
    "region": "eu-central-1", "machine_image": "ami-00000001", "accelerator": "H100",
    "secret": "credentials", "claim": "volume", "queue": "line", "environment": ["AWS_REGION"],
}  # fmt: skip
"""of each value one that is not its default"""


def test_every_value_has_another_here():
    assert OTHER.keys() == Values.model_fields.keys() - {"kind"}


@pytest.mark.parametrize("kind", Kind)
def test_a_file_depends_on_each_value_that_it_reads(kind):
    # Without GPUs it does not matter which, and a bucket needs no claim.
    fixed = {"gpus": 8} if "accelerator" in READS[kind] else {}
    first = written(kind, **fixed)
    for name in READS[kind] - {"gpus" if fixed else ""}:
        assert written(kind, **fixed | {name: OTHER[name]}) != first, name


@pytest.mark.parametrize("kind", Kind)
def test_a_value_that_a_file_does_not_read_is_refused(kind):
    for name in OTHER.keys() - READS[kind]:
        with pytest.raises(InputError, match=f"^{kind} does not read {option(name)}; it reads "):
            values_of(kind, LEAST.get(kind, {}) | {name: OTHER[name]})


WRONG = [
    ("slurm", "nodes", 0), ("slurm", "nodes", 1001), ("slurm", "gpus", -1), ("slurm", "gpus", 17),
    ("slurm", "cpus", 0), ("slurm", "cpus", 481), ("slurm", "memory", 3), ("slurm", "hours", 0),
    ("slurm", "hours", 721), ("slurm", "root", "relative"), ("slurm", "root", ""),
    ("slurm", "root", "/"), ("slurm", "root", "/a\nb"), ("slurm", "root", "/a\u2028b"),
    ("slurm", "root", "/a\x1b[31m"), ("slurm", "root", "/a:b"), ("slurm", "root", "s3:///a"),
    ("slurm", "root", "s3://user:word@bucket/a"), ("slurm", "root", "http://a/b"),
    ("slurm", "study", ""), ("slurm", "study", "a\nb"), ("slurm", "study", "--root"),
    ("kuberay-job", "study", "a b"), ("kuberay-job", "study", "$(id)"),
    ("kuberay-job", "image", "a b"), ("kuberay-job", "image", "a\n"),
    ("kuberay-job", "secret", "A_B"), ("kuberay-job", "claim", "-a"), ("kueue", "queue", "a.b"),
    ("kueue", "queue", "a" * 51), ("ray-on-premises", "hosts", ["a;b"]),
    ("ray-on-premises", "hosts", [""]), ("ray-on-premises", "user", "a b"),
    ("ray-aws", "machine_image", "ubuntu"), ("ray-aws", "region", "mars"), ("ray-aws", "gpus", 3),
    ("ray-aws", "root", "/shared"), ("skypilot", "root", "/shared"),
    ("skypilot", "accelerator", "L4:8"), ("skypilot", "environment", ["A=secret"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_value_out_of_its_range_is_refused_in_one_line_that_names_it(kind, name, value):
    with pytest.raises(InputError) as caught:
        written(kind, **{name: value})
    assert option(name) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("kind", "name"), [("ray-on-premises", "--host"),
                                            ("ray-aws", "--machine-image"),
                                            ("skypilot", "--root")])  # fmt: skip
def test_what_a_kind_cannot_do_without_is_asked_for(kind, name):
    with pytest.raises(InputError, match=name):
        values_of(Kind(kind), {})


def test_a_machine_has_eight_cpus_and_32_gib_for_each_gpu_and_as_much_without():
    for gpus, shares in ((0, 1), (1, 1), (8, 8)):
        values = values_of(Kind.SLURM, {"gpus": gpus})
        assert (values.cpus, values.memory) == (8 * shares, 32 * shares)
