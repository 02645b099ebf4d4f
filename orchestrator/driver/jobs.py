"""RAY: a study as a job of a cluster that is elsewhere: sent, followed, asked for, stopped."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import logging
import os
import re
import shlex
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.driver.arrival import VERSIONS, as_text, versions_here
from orchestrator.submission import Submission
from trainers.config.explain import brief
from trainers.errors import ClusterError, InputError

ANSWER_WITHIN_S = 20
"""for which a head may be silent before it counts as none"""

STOPPED_WITHIN_S = 20
"""for which Ray waits after SIGTERM, before SIGKILL: a driver ends in `interrupt.LEAVE_WITHIN_S`"""

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.authentication.http_token_authentication",
)
"""What goes wrong arrives as an exception."""

_STUDY, _ROOT = "dinolab_study", "dinolab_root"
_GIVE = (
    "give http://HOST:8265 of a head that `ray start --head --dashboard-host=0.0.0.0` has started"
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a study as the cluster knows it."""

    id: str
    study: str
    root: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED"""
    exit_code: int | None
    """the driver's; None while it runs, and where it was killed or never began"""
    message: str
    """first line of what Ray says"""
    began: float | None
    """seconds since 1970"""

    @property
    def has_ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class Jobs:
    """The jobs of studies on the cluster whose dashboard is at `address`.

    Raises InputError, one line, when that is no such address, nothing answers there, or it asks for
    another token; afterwards ClusterError, one line, when it does not answer any more.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.version = _ray_version(self.address)
        # Ray itself would take these in place of what is given.
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(name, None)
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._answering():
            self._client = JobSubmissionClient(self.address)
            # The version is told to anybody.
            self._client.list_jobs()

    def of(self, study: str | None = None, root: str | None = None) -> list[Job]:
        """Jobs of that study and run root, or of all, the newest first."""
        with self._answering():
            found = [_job(one) for one in self._client.list_jobs()]
        of_ours = [
            job for job in found if job and study in (None, job.study) and root in (None, job.root)
        ]
        return sorted(of_ours, key=lambda job: job.began or 0, reverse=True)

    def submit(self, submission: Submission, environment: Mapping[str, str]) -> tuple[Job, bool]:
        """The job of a submission, and whether it is a new one.

        One that is waiting or running is joined: it is not new. One that has ended is followed by
        another, which goes on from what is finished.
        """
        archive = submission.archive()
        before = [
            job
            for job in self.of(submission.study, submission.root)
            if _attempt(job.id, submission.identity)
        ]
        for job in before:
            if not job.has_ended:
                return job, False
        attempt = 1 + max((_attempt(job.id, submission.identity) for job in before), default=0)
        id_ = f"{submission.identity}-{attempt}"
        with tempfile.TemporaryDirectory(prefix="dinolab-") as folder, self._answering():
            path = Path(folder) / "job.zip"
            path.write_bytes(archive)
            try:
                self._client.submit_job(
                    entrypoint=entrypoint(submission),
                    submission_id=id_,
                    runtime_env={
                        "working_dir": str(path),
                        "env_vars": {
                            **environment,
                            "RAY_JOB_STOP_WAIT_TIME_S": str(STOPPED_WITHIN_S),
                            VERSIONS: as_text(versions_here()),
                        },
                    },
                    metadata={_STUDY: submission.study, _ROOT: submission.root},
                )
            except RuntimeError as error:
                # Somebody was faster, by so little that it was not there before.
                if "already exists" not in str(error):
                    raise
                return self.named(id_), False
        return self.named(id_), True

    def named(self, id_: str) -> Job:
        """The job of that id, as it is now."""
        with self._answering():
            job = _job(self._client.get_job_info(id_))
        if job is None:
            raise InputError(f"job {id_} is not of dinolab")
        return job

    def logs(self, job: Job) -> str:
        """What its driver has printed."""
        with self._answering():
            return self._client.get_job_logs(job.id)

    def follow(self, job: Job, write: Callable[[str], object]) -> Job:
        """Pass on what its driver prints until it has ended: as it is then.

        Where the connection is lost it is made again, and nothing is passed on twice.
        """
        passed = 0

        async def tail() -> None:
            nonlocal passed
            to_skip = passed
            async for text in self._client.tail_job_logs(job.id):
                new = text[to_skip:]
                to_skip = max(0, to_skip - len(text))
                write(new)
                passed += len(new)

        while True:
            # Whatever the websocket raises: the next question tells whether the head is there.
            with contextlib.suppress(Exception):
                asyncio.run(tail())
            now = self.named(job.id)
            if now.has_ended:
                # What came after the last look of who sends it.
                write(self.logs(job)[passed:])
                return now
            time.sleep(1)

    def stop(self, job: Job) -> Job:
        """End its driver as Ctrl-C does, and wait for that: as it is then.

        Raises ClusterError, one line, when it has not ended after twice STOPPED_WITHIN_S.
        """
        with self._answering():
            self._client.stop_job(job.id)
        until = time.monotonic() + 2 * STOPPED_WITHIN_S
        while not (now := self.named(job.id)).has_ended:
            if time.monotonic() > until:
                raise ClusterError(
                    f"job {job.id} has been told to stop, and is still {now.status}: ask again "
                    "with `dinolab job status`"
                )
            time.sleep(0.2)
        return now

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        from ray.exceptions import AuthenticationError
        from requests.exceptions import RequestException

        try:
            yield
        except AuthenticationError as error:
            raise InputError(_refused(self.address, str(error))) from None
        except (RequestException, ConnectionError) as error:
            raise ClusterError(
                f"the cluster at {self.address} does not answer any more ({_brief(error)}); "
                "what it runs goes on where it can: ask again later"
            ) from None
        except RuntimeError as error:
            raise ClusterError(
                f"the cluster at {self.address} refuses: {_reason(str(error))}"
            ) from None


def entrypoint(submission: Submission) -> str:
    """The command of a job; the shell becomes the driver, so that signals and codes are its own."""
    driver = shlex.join(["python", "-m", "orchestrator", "run", *submission.arguments])
    return f"python -m orchestrator.driver.arrival && exec {driver}"


def _attempt(id_: str, identity: str) -> int:
    """Which of the jobs of a submission this is, from 1 on; 0 for another's."""
    found = re.fullmatch(rf"{re.escape(identity)}-(\d+)", id_)
    return int(found[1]) if found else 0


def _job(details: Any) -> Job | None:
    metadata = details.metadata or {}
    if _STUDY not in metadata or not details.submission_id:
        return None
    return Job(
        id=details.submission_id,
        study=metadata[_STUDY],
        root=metadata.get(_ROOT, ""),
        status=str(details.status),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().split("\n")[0],
        began=details.start_time and details.start_time / 1000,
    )


def _ray_version(address: str) -> str:
    """Version of the Ray at an address. Raises InputError, one line, when none answers there."""
    lacking = [name for name in ("aiohttp", "requests") if not importlib.util.find_spec(name)]
    if lacking:
        raise InputError(
            f"jobs need {' and '.join(lacking)}, of Ray's own extra: pip install 'ray[default]'"
        )
    if not address.startswith(("http://", "https://")):
        raise _unusable(address, "it is no http:// or https:// address of a dashboard")
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_WITHIN_S) as answer:
            return str(json.loads(answer.read())["ray_version"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return ""  # the client has the token
        raise _unusable(address, f"what answers there is no Ray (HTTP {error.code})") from None
    except urllib.error.URLError as error:
        what = getattr(error.reason, "strerror", None) or error.reason
        raise _unusable(address, f"nothing answers there ({what})") from None
    except TimeoutError:
        raise _unusable(address, f"nothing answers within {ANSWER_WITHIN_S} s") from None
    except (http.client.HTTPException, OSError, ValueError, LookupError, TypeError) as error:
        raise _unusable(address, f"what answers there is no Ray ({_brief(error)})") from None


def _unusable(address: str, what: str) -> InputError:
    return InputError(f"--address {address} cannot be used: {what}; {_GIVE}")


def _refused(address: str, said: str) -> str:
    """Why a head lets nobody in, and what to do, in a line."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return (
            f"the cluster at {address} asks for a token (401): set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN to what `~/.ray/auth_token` on its head holds"
        )
    code = 403 if "Invalid" in said else 401
    return (
        f"the cluster at {address} does not take this token ({code}): set RAY_AUTH_TOKEN, or "
        "RAY_AUTH_TOKEN_PATH to a file, to what `~/.ray/auth_token` on its head holds"
    )


def _brief(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _reason(said: str) -> str:
    """The last line of a traceback that a head sends, or the only one."""
    if "No available agent" in said:
        return (
            "it has no agent on its head, whose port may be another's: start it with another "
            "`ray start --dashboard-agent-listen-port`"
        )
    lines = [line for line in said.strip(" .\n").splitlines() if line.strip()]
    return brief(lines[-1].strip() if lines else "it does not say why")
