"""The run root of a driver: what of it can be used, and what other code has left there."""

from collections.abc import Callable

from ablations.lock import Lock
from orchestrator.plan import Plan
from trainers.runs.left_behind import left_behind
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.system.store import Store


def set_aside_damaged(plan: Plan, store: Store, say: Callable[[str], None]) -> None:
    """Move results that cannot be used out of the way, each with a line, so that they come again.

    A result is usable if it and all records that it names have their digests. Raises StoreError.
    """
    begun = set(store.names(TRIALS))
    for trial in plan.trials:
        if trial.key in begun:
            StoredTrial(store, trial.key).set_aside_damaged(say)


def left_behind_text(plan: Plan, store: Store, earlier: Lock | None) -> str:
    """Which missing trials other code has finished, in words; empty when there are none.

    `earlier` is the lock of the study as it was, which knows the commit if it is of that code.
    """
    missing = plan.missing(store)
    found = left_behind([(trial.key, trial.config, trial.digest) for trial in missing], store)
    if found is None:
        return ""
    then = ""
    if earlier and {trial.key for trial in earlier.trials} & set(found.found):
        dirty = ", with changes that were not committed" if earlier.git.get("dirty") else ""
        if commit := earlier.git.get("commit"):
            then = f"commit {str(commit)[:12]}{dirty}"
    return found.sentence(len(missing), then)
