"""Equal bits again with the speed knobs that paid, which choose other kernels."""

from benchmarks.gpu.record import Part
from benchmarks.gpu.same_bits import three_runs
from benchmarks.gpu.task import Task


def run(task: Task, part: Part) -> None:
    """At the batch of the step's part, for which kernels are compiled already."""
    if not task.best.knobs:
        part.note("no speed knob was found to pay, so there is nothing to add.")
        return
    three_runs(task, part, task.large, task.best.knobs)
