"""What attention statistics add to training, at the cadence of the published recipe."""

from benchmarks import ours
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.measure import cost
from benchmarks.pictures import photographs
from trainers.config import in_steps
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images

SHARE = 0.02
"""Goal: share of training that they take, at most."""


def run(task: Task, part: Part) -> None:
    """Seconds of one evaluation between the ends, beside those of the steps until the next."""
    if not task.best.rate:
        part.note("the time of a step is not known, so the share is not, either.")
        return
    name, trained_on = ("digits_tiny", 1438) if task.toy else ("dino_vit_small_16", 1_281_167)
    cadence = in_steps(recipe(name), trained_on).evaluation
    images = 24 if task.toy else 2 * cadence.globality_probe_images
    photographs(task.scratch / "measured", images)
    setting = task.large
    config = ours.configuration(
        setting,
        {
            "data.source": str(task.scratch / "measured"),
            "data.test_share": 0.5,
            "evaluation.every": cadence.every,
            "evaluation.globality_probe_images": cadence.globality_probe_images,
            "evaluation.globality_layers": [setting.depth - 1],
            **ours.ORIGINALS,
        },
    )
    opened = open_images(config.data, task.scratch / "cache")
    seconds = cost(config, opened, thorough=False, device=task.device)
    share = seconds / (seconds + cadence.every * setting.batch / task.best.rate)
    part.figure("seconds", seconds)
    part.figure("share", share)
    part.row(
        f"between the ends, {seconds:.2f} s every {cadence.every:,} steps",
        f"{share:.3%} of training",
        goal=goal(f"≤ {SHARE:.0%}", met=share <= SHARE),
    )
