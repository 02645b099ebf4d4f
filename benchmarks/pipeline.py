"""Images from disk to crops on the device: ours, and peers' loaders, a core each.

    python -m benchmarks.pipeline --original PATH --lightly

JPEGs of 500 × 375 pixels, made for the benchmark, to 2×224 + 8×96 crops, each contender on one
thread without loader workers. All cut from the image as decoded; with `--side`, ours squeezes it to
a square of so many pixels first.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import original, ours
from benchmarks.command import common_arguments, device_of, no_peer, setting_of
from benchmarks.contest import OURS, Contender, Goal, hold, show
from benchmarks.pictures import photographs


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the pictures, hold the contest, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    common_arguments(parser)
    parser.set_defaults(threads=1)
    parser.add_argument("--lightly", action="store_true", help="lightly as a contender, too")
    parser.add_argument("--images", type=int, default=256, help="pictures to make")
    parser.add_argument("--side", type=int, default=0, help="side of our squares, pixels; 0: none")
    given = parser.parse_args(arguments)
    device = device_of(given)
    setting = setting_of(given, on_gpu="vit_small", on_cpu="vit_tiny")
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = str(Path(scratch, "pictures")), str(Path(scratch, "cache"))
        photographs(Path(folder), given.images)

        def mine(name: str, part: str) -> Contender:
            arguments = (setting, device, folder, cache, given.side, part)
            return Contender(name=name, make=ours.make_pipeline, arguments=arguments)

        contenders = [
            mine(OURS, "all"),
            mine("ours: decode and resample", "decode"),
            mine("ours: crops alone", "augment"),
        ]
        notes = [
            f"{given.images} JPEGs of 500 × 375 to {setting.global_crops}×{setting.global_size} + "
            f"{setting.local_crops}×{setting.local_size}, {given.threads} thread, no workers; "
            + (f"our squares have {given.side} pixels" if given.side else "cut from originals")
        ]
        if given.original:
            arguments_of_peer = (given.original, setting, device, folder, 0)
            contenders.append(
                Contender(
                    name=original.NAME, make=original.make_pipeline, arguments=arguments_of_peer
                )
            )
        else:
            notes.append(no_peer("original", "--original PATH"))
        if given.lightly:
            from benchmarks import lightly_peer

            contenders.append(
                Contender(
                    name=lightly_peer.NAME,
                    make=lightly_peer.make_pipeline,
                    arguments=(setting, device, folder, 0),
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
        "Images from disk to crops",
        outcomes,
        goals=[Goal(peer=original.NAME, ratio=3.0)],
        notes=notes,
        json_path=given.json,
    )


if __name__ == "__main__":
    main()
