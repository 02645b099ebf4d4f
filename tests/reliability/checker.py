"""What a run root must be once everything has ended, read without any code under test.

Files in, problems out: JSON, SHA-256 and the layout that the documentation promises.
"""

import hashlib
import json
import re
from collections.abc import Mapping

OF_THE_MACHINE = ("time/", "memory/")
"""Metrics that two undisturbed runs differ in."""

ENDED = ("finished", "collapsed")
"""A run that has collapsed is a result like any other."""

_IN_A_TRIAL = re.compile(
    r"config\.json|result\.json|values\.parquet|damaged/\d{4}/result\.json|"
    r"attempts/\d{4}/(lease\.json|failure\.json|log\.txt|metrics-\d{9}\.jsonl|"
    r"by_image(-0)?\.safetensors|maps-\d+\.safetensors|"
    r"checkpoint-\d+\.json|checkpoint-\d+(\.safetensors|/.+))"
)


def digest(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def records(lines: bytes) -> list[tuple[int, dict[str, float]]]:
    """Steps and metrics, those of the machine left out."""
    found = [json.loads(line) for line in lines.splitlines()]
    return [
        (r["step"], {k: v for k, v in r["metrics"].items() if not k.startswith(OF_THE_MACHINE)})
        for r in found
    ]


def problems(
    files: Mapping[str, bytes], expected: Mapping[str, list[tuple[int, dict[str, float]]]]
) -> list[str]:
    """What is wrong with a root of `files`, by key, that should hold the trials `expected`.

    `expected` has the records of an undisturbed run of each trial.
    """
    found = []
    trials: dict[str, dict[str, bytes]] = {}
    for key, content in files.items():
        if match := re.fullmatch(r"trials/([^/]+)/(.+)", key):
            trials.setdefault(match[1], {})[match[2]] = content
    found += [f"trial {key} is not there" for key in expected if key not in trials]
    found += [f"trial {key} was never asked for" for key in trials if key not in expected]
    for key in expected:
        if key in trials:
            found += [f"trial {key}: {what}" for what in _of_trial(trials[key], expected[key])]
    return found


def _of_trial(
    files: Mapping[str, bytes], expected: list[tuple[int, dict[str, float]]]
) -> list[str]:
    found = [f"{name} should not be there" for name in files if not _IN_A_TRIAL.fullmatch(name)]
    if "config.json" not in files or "result.json" not in files:
        return [*found, "it has no result"]
    result = json.loads(files["result.json"])
    if result["status"] not in ENDED or result["step"] != result["steps"]:
        found.append(f"its result is {result['status']} at step {result['step']}")
    folder = f"attempts/{result['attempt']:04d}"
    for name, stated in result["files"].items():
        content = files.get(f"{folder}/{name}")
        if content is None or digest(content) != stated:
            found.append(f"{folder}/{name} is not what the result says")
    for name, stated in result["of_images"].items():
        if digest(files.get(name, b"")) != stated:
            found.append(f"{name} is not what the result says")
    for name in result["checkpoints"].values():
        if name not in files:
            found.append(f"checkpoint {name} is not there")
        manifest = json.loads(files.get(name.removesuffix(".safetensors") + ".json", b"{}"))
        for one, stated in manifest.get("files", {"?": {}}).items():
            content = files.get(f"{name.rpartition('/')[0]}/{one}", b"")
            if digest(content) != stated:
                found.append(f"checkpoint {name} is not what its manifest says")
        for one, stated in manifest.get("of_images", {}).items():
            if digest(files.get(one, b"")) != stated:
                found.append(f"{one} is not what the manifest of {name} says")
    segments = sorted(name for name in result["files"] if name.startswith("metrics-"))
    lines = b"".join(files.get(f"{folder}/{name}", b"") for name in segments)
    if records(lines) != expected:
        found.append("its records are not those of an undisturbed run")
    return found
