"""The run root of a driver: what of it can be used, and what other code has left there."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ablations.registration import Entry
from orchestrator.plan import Plan, Trial
from trainers.runs.left_behind import left_behind
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.system.store import AT_ONCE, Store


def damaged_trials(plan: Plan, store: Store) -> list[str]:
    """Keys of the trials whose results cannot be used. Raises StoreError.

    A result is usable if it and the files that it rests on have their digests.
    """
    begun = set(store.names(TRIALS))
    keys = [trial.key for trial in plan.trials if trial.key in begun]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        damages = list(pool.map(lambda key: StoredTrial(store, key).damage(), keys))
    return [key for key, damage in zip(keys, damages, strict=True) if damage]


def set_aside_damaged(keys: Iterable[str], store: Store, say: Callable[[str], None]) -> None:
    """Move results that cannot be used out of the way, each with a line, so that they come again.

    Raises StoreError.
    """
    for key in keys:
        StoredTrial(store, key).set_aside_damaged(say)


def left_behind_text(missing: Sequence[Trial], store: Store, chain: Sequence[Entry]) -> str:
    """Which `missing` trials other code has finished, in words; empty when there are none.

    `chain` are the registrations of the study, one of which may know the commit of that code.
    """
    found = left_behind([(trial.key, trial.config, trial.digest) for trial in missing], store)
    if found is None:
        return ""
    then = ""
    theirs = (e for e in reversed(chain) if {trial.key for trial in e.trials} & set(found.found))
    if earlier := next(theirs, None):
        dirty = ", with changes that were not committed" if earlier.git.get("dirty") else ""
        if commit := earlier.git.get("commit"):
            then = f"commit {str(commit)[:12]}{dirty}"
    return found.sentence(len(missing), then)
