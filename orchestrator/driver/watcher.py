"""RAY: what the driver does when trials report and end: show it and mirror it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from orchestrator import interrupt
from orchestrator.driver.progress import StudyProgress
from orchestrator.driver.worker import SHOWN
from orchestrator.plan import Trial
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store


class Watcher(tune.Callback):
    """A Ray Tune callback over the trials of one study."""

    def __init__(
        self,
        trials: Sequence[Trial],
        store: Store,
        progress: StudyProgress,
        mirror: Callable[[Trial], None],
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.store = store
        self.progress = progress
        self.mirror = mirror

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks so that it could restore itself; the run folder does that here.
        return {}

    def _ours(self, ray_trial: Any) -> tuple[Trial, str]:
        trial = self.trials[ray_trial.config["trial"].key]
        return trial, f"{' = '.join(trial.arms)} seed {trial.seed}"

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        """Tune's loop has gone round once."""
        interrupt.check()

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any
    ) -> None:
        """A trial has come some steps further."""
        if "step" in result:
            ours, title = self._ours(trial)
            metrics = {name: result[name] for name in SHOWN if name in result}
            self.progress.moved(title, int(result["step"]), ours.config.steps, metrics)
            self.mirror(ours)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has returned: finished, or given up with the reason in its folder."""
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has failed as often as it may."""
        self._ended(trial)

    def _ended(self, ray_trial: Any) -> None:
        ours, title = self._ours(ray_trial)
        self.progress.ended(title, outcome(StoredTrial(self.store, ours.key)))
        self.mirror(ours)


def outcome(trial: StoredTrial) -> str:
    """How a trial ended, in words."""
    result = trial.finished()
    if result is None:
        failure = trial.failed()
        return f"failed: {failure.message if failure else 'it left no result'}"
    took = f"{result['wall_s']:.0f} s"
    if result["resumed_at"]:
        took += f", resumed at step {result['resumed_at']}"
    reason = f" {result['reason']}" if result["reason"] else ""
    return f"{result['status']}{reason} ({took})"
