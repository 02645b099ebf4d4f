"""Images from disk to updated weights: ours, and peers' with and without loader workers.

    python -m benchmarks.end_to_end --original PATH --lightly
    python -m benchmarks.end_to_end --original PATH --lightly --setting small

ViT-Ti/16 (ViT-S/16 on a GPU) on JPEGs of 500 × 375 pixels made for the benchmark; `--setting small`
is the size of the demo on the digits, as PNGs of 16 pixels.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import original, ours
from benchmarks.command import common_arguments, device_of, no_peer, setting_of
from benchmarks.contest import OURS, Contender, Goal, hold, show
from benchmarks.pictures import digits, photographs

WORKERS = (0, 2)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the pictures, hold the contest, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    common_arguments(parser)
    parser.add_argument("--lightly", action="store_true", help="lightly as a contender, too")
    parser.add_argument("--images", type=int, default=256, help="photographs to make")
    given = parser.parse_args(arguments)
    device = device_of(given)
    setting = setting_of(given, on_gpu="vit_small", on_cpu="vit_tiny")
    of_digits = setting.global_size <= 32
    goal = 6.0 if of_digits else 2.5 if device == "cuda" else 1.3
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = str(Path(scratch, "pictures")), str(Path(scratch, "cache"))
        if of_digits:
            digits(Path(folder), setting.global_size)
        else:
            photographs(Path(folder), given.images)
        side = setting.global_size if of_digits else 0
        change = dict(given.change)
        contenders = [
            Contender(
                name=OURS,
                make=ours.make_training,
                arguments=(setting, device, folder, cache, side, change),
            )
        ]
        notes = [f"{setting.name}, batch {setting.batch}, {device}, {given.threads} threads"]
        names = []
        for workers in WORKERS if given.original else ():
            names.append(f"{original.NAME}, {workers} workers")
            contenders.append(
                Contender(
                    name=names[-1],
                    make=original.make_training,
                    arguments=(given.original, setting, device, folder, workers),
                )
            )
        if not given.original:
            notes.append(no_peer("original", "--original PATH"))
        for workers in WORKERS if given.lightly else ():
            from benchmarks import lightly_peer

            names.append(f"{lightly_peer.NAME}, {workers} workers")
            contenders.append(
                Contender(
                    name=names[-1],
                    make=lightly_peer.make_training,
                    arguments=(setting, device, folder, workers),
                )
            )
        outcomes = hold(
            contenders,
            rounds=given.rounds,
            steps=given.steps,
            warmup=given.warmup,
            threads=given.threads,
        )
    show(
        f"Disk to updated weights, {setting.name}",
        outcomes,
        goals=[Goal(peer=name, ratio=goal) for name in names],
        notes=notes,
        json_path=given.json,
    )


if __name__ == "__main__":
    main()
