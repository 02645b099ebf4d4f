"""The records of a run that is being trained, as they come."""

from trainers.runs.records import Record, parse
from trainers.runs.stored_trial import StoredTrial


class NewerRecords:
    """The records of a trial that has no result yet, each once for as long as it is one attempt."""

    def __init__(self, trial: StoredTrial) -> None:
        self._trial = trial
        self._attempt = 0
        self._segment = ""
        # The last one that was read, which may have grown, and how many bytes of it were read.
        self._bytes = 0

    def read(self) -> tuple[list[Record], bool]:
        """Records that were not read yet, and whether they begin with the first one.

        Those of the newest attempt that has any. Raises InputError, one line, for a damaged one.
        """
        attempt, segments = self._trial.newest_segments()
        is_anew = bool(segments) and attempt != self._attempt
        last, read = ("", 0) if is_anew else (self._segment, self._bytes)
        records: list[Record] = []
        for segment in segments:
            if segment >= last:
                content = self._trial.store.get(segment) or b""
                start = read if segment == last else 0
                records += parse(content[start:], f"{self._trial.store.shown}/{segment}")
                last, read = segment, max(start, len(content))
        if segments:
            self._attempt, self._segment, self._bytes = attempt, last, read
        return records, is_anew
