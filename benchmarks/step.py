"""One update, forward, backward and all, on crops that are already there: ours, and peers'.

    python -m benchmarks.step --original PATH

On a GPU: ViT-S/16, ours in bfloat16, the original in its own fp16 mode. On a CPU: ViT-Ti/16 in
float32, which is faster than bfloat16 where there is no AMX; `--precision measure` runs both.
"""

import argparse

from benchmarks import original, ours
from benchmarks.command import common_arguments, device_of, no_peer, setting_of
from benchmarks.contest import OURS, Contender, Goal, hold, show
from benchmarks.setting import make_ceiling


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, hold the contest, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    common_arguments(parser)
    parser.add_argument("--lightly", action="store_true", help="lightly as a contender, too")
    given = parser.parse_args(arguments)
    device = device_of(given)
    setting = setting_of(given, on_gpu="vit_small", on_cpu="vit_tiny")

    contenders = [
        Contender(name=OURS, make=ours.make_step, arguments=(setting, device, dict(given.change))),
        Contender(name="ceiling", make=make_ceiling, arguments=(setting, device), steps=20),
    ]
    notes = [f"{setting.name}, batch {setting.batch}, {setting.prototypes} prototypes, {device}"]
    goals = [Goal(peer=original.NAME, ratio=2.5 if device == "cuda" else 1.4)]
    if given.original:
        contenders.insert(
            1,
            Contender(
                name=original.NAME,
                make=original.make_step,
                arguments=(given.original, setting, device),
            ),
        )
    else:
        notes.append(no_peer("original", "--original PATH"))
    if given.lightly:
        from benchmarks import lightly_peer

        contenders.insert(
            -1,
            Contender(
                name=lightly_peer.NAME,
                make=lightly_peer.make_step,
                arguments=(setting, device),
            ),
        )
    outcomes = hold(
        contenders,
        rounds=given.rounds,
        steps=given.steps,
        warmup=given.warmup,
        threads=given.threads,
    )
    *sides, ceiling = outcomes
    show(
        f"One update of {setting.name}",
        sides,
        goals=goals,
        notes=notes,
        ceiling=ceiling,
        operations_a_unit=setting.operations_an_image(),
        json_path=given.json,
    )


if __name__ == "__main__":
    main()
