"""Shows the digest of a registration to somebody outside, since one's own clock proves nothing."""

import os
import shlex
import shutil
import subprocess

from ablations.registration import Entry, registration_key
from dashboards.tables.chain import digest_line
from trainers.config.explain import brief
from trainers.errors import InputError, reason
from trainers.system.store import Store

VARIABLE = "DINOLAB_REGISTRATION"
"""Environment variable that gives a witness the digest, beside its last argument."""

ANSWER_WITHIN_S = 60.0
"""A witness that takes longer is ended, and has failed."""


def words_of(command: str) -> list[str]:
    """The words of a command. Raises InputError, one line, where it has none, or open quotes."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--witness {command}: {error}") from None
    if not words:
        raise InputError("--witness is empty: give a command, which gets the digest as last word")
    return words


def refuse_no_witness(command: str) -> None:
    """Raises InputError, one line, where there is no such command, before anything is written."""
    name = words_of(command)[0]
    if shutil.which(name) is None:
        raise InputError(f"--witness {command}: there is no command {name} that can be executed")


def witness_key(entry: Entry) -> str:
    """The key of what the witness of a registration printed."""
    return registration_key(entry.study, entry.number, "witness")


def witness(entry: Entry, store: Store, command: str) -> str:
    """Give the digest to `command` and keep what it prints, with its digest; where that is.

    A registration has one witness: one that was witnessed before is not shown again. Raises
    InputError, one line, when the command fails, or has not ended within ANSWER_WITHIN_S; the
    registration stands then.
    """
    key = witness_key(entry)
    if store.get(key) is None:
        said = _said(words_of(command), entry)
        if store.put(key, said, if_absent=True):
            store.put(f"{key}.sha256", digest_line(said, key))
    return f"{store.shown}/{key}"


def _said(words: list[str], entry: Entry) -> bytes:
    environment = {**os.environ, VARIABLE: entry.digest}
    try:
        done = subprocess.run(
            [*words, entry.digest],
            check=False,
            capture_output=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=ANSWER_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        why = f"it has not ended within {ANSWER_WITHIN_S:g} s, and was ended"
        raise _failed(words, entry, why) from None
    except OSError as error:
        raise _failed(words, entry, reason(error)) from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        why = f"it ended with code {done.returncode}" + (f" ({said})" if said else "")
        raise _failed(words, entry, why)
    return done.stdout


def _failed(words: list[str], entry: Entry, why: str) -> InputError:
    return InputError(
        brief(
            f"--witness {shlex.join(words)}: {why}; nothing was trained. Registration "
            f"{entry.number} of study {entry.study} stands (sha256 {entry.digest}): `dinolab run` "
            "with a --witness shows it again"
        )
    )
