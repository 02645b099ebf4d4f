"""Files for `ray up`: Ray's own schema, its own checks, and the command it makes of them."""

import copy
import shlex

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.orchestrator.deploy.conftest import AWKWARD, documents, written


@pytest.fixture(params=["ray-on-premises", "ray-aws"])
def kind(request):
    return request.param


def started(config):
    """The words with which Ray starts its container."""
    line = docker_start_cmds(
        "ubuntu", config["docker"]["image"], config["file_mounts"], "dinolab",
        config["docker"]["run_options"], config["cluster_name"], "/home/dinolab", "docker",
    )  # fmt: skip
    return shlex.split(line)


def test_ray_takes_it(kind):
    (config,) = documents(kind, gpus=8)
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(ValidationError, match="worker_setup"):
        validate_config(prepare_config({**config, "worker_setup": []}))


def test_every_machine_of_ours_is_there_from_the_beginning():
    config = prepare_config(documents("ray-on-premises", hosts=["a", "b", "c"])[0])
    assert config["provider"]["head_ip"] == "a"
    assert config["provider"]["worker_ips"] == ["b", "c"]
    (node_type,) = config["available_node_types"].values()
    assert (node_type["min_workers"], node_type["max_workers"], config["max_workers"]) == (2, 2, 2)


def test_one_machine_of_ours_is_a_cluster():
    config = prepare_config(documents("ray-on-premises", hosts=["a"])[0])
    validate_config(config)
    assert config["provider"]["worker_ips"] == []


def test_a_cluster_on_aws_has_a_head_and_the_other_machines():
    config = prepare_config(documents("ray-aws", nodes=4, gpus=8, accelerator="H100")[0])
    types = config["available_node_types"]
    assert (types["worker"]["min_workers"], types["worker"]["max_workers"]) == (3, 3)
    assert config["max_workers"] == 3
    for one in types.values():
        assert one["node_config"]["InstanceType"] == "p5.48xlarge"
        assert one["node_config"]["ImageId"] == "ami-0123456789abcdef0"
        assert one["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_the_container_gets_the_root_of_an_awkward_text_as_it_is():
    words = started(documents("ray-on-premises", root=AWKWARD)[0])
    assert f"--env=DINOLAB_ROOT={AWKWARD}" in words
    assert f"--volume={AWKWARD}:{AWKWARD}" in words
    assert words[-1] == "bash"


def test_a_bucket_on_our_machines_needs_a_file_of_theirs_and_no_folder():
    words = started(documents("ray-on-premises", root="s3://bucket/runs")[0])
    assert "--env-file=$HOME/dinolab.env" in words
    assert not [word for word in words if word.startswith("--volume")]


def test_its_ray_asks_for_a_token_which_is_no_part_of_the_file(kind):
    config = yaml.safe_load(written(kind))
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/dinolab/.ray/auth_token": "~/.ray/auth_token"}
    assert "--cap-drop=ALL" in config["docker"]["run_options"]
