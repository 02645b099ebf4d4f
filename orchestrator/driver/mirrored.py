"""The mirror as a study sees it: it may fail at any time and stops nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dashboards.tables.reading import StudyRun
from orchestrator.plan import Trial
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.store import shown, trouble
from trainers.errors import DinolabError
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store


class Mirrored:
    """The mirror, which may fail at any time without stopping the study: it says so once.

    Raises InputError when it cannot be opened.
    """

    def __init__(self, study: str, root: str, console: Console) -> None:
        self.mirror = Mirror(study, Path(root), console.print)
        self.console = console
        self.broken = False
        self.said: set[str] = set()

    def _try(self, work: Any, *arguments: Any) -> None:
        if self.broken:
            return
        try:
            work(*arguments)
        except DinolabError as error:
            # A file of a run is damaged, which is not the store's fault.
            if str(error) not in self.said:
                self.said.add(str(error))
                self.console.print(f"not in MLflow yet: {error}")
        except Exception as error:  # noqa: BLE001 (MLflow passes on errors of many libraries)
            self.broken = True
            self.console.print(
                f"MLflow store {shown(self.mirror.uri)} takes nothing more: {trouble(error)}; "
                "training goes on, nothing is lost: the same command, run again when that is "
                "mended, writes what is missing",
            )

    def sync(self, trial: Trial, store: Store) -> None:
        """Mirror a trial for each arm that it belongs to."""
        for arm in trial.arms:
            self._try(self.mirror.sync, arm, trial.seed, StoredTrial(store, trial.key))

    def finish(self, study: StudyRun, artifacts: Sequence[str], whole: bool) -> None:
        """Mirror what concerns arms and the study."""
        lock = study.lock.model_dump(mode="json")
        local = study.store.local or Path()
        self._try(self.mirror.finish, study.table, lock, [local / one for one in artifacts], whole)
