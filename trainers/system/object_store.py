"""A run root on object storage: s3://, gs:// and az://, over obstore.

Credentials come from the environment alone (AWS_…, GOOGLE_…, AZURE_…), and no text of obstore's,
which may hold some, is passed on: what went wrong is said in words of this file.
"""

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from trainers.errors import RootError, StoreError, printable, reason
from trainers.system import atomic
from trainers.system.keys import Entry, checked

PATIENCE_S = 90.0
"""for how long what may pass, such as a storage that is away for a minute, is tried again"""
PATIENCE_AT_OPENING_S = 10.0
"""the same before anything is written: rather a mistyped address"""
ENDPOINT = r"(?P<scheme>https?)://(?P<host>([\w.-]+|\[[\da-f:]+\])(:(?P<port>\d{1,5}))?)(/[^\s@]*)?"
REQUEST_S = 30.0
"""a request that takes longer has failed; an object of PART bytes takes seconds"""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""between two tries: each time twice as long"""
PART = 8 << 20
"""bytes of a large object in one request, of which there are PARALLEL at once"""
PARALLEL = 4
MOST_PARTS = 9_000
"""somewhat fewer than storages allow"""
MARK = ".dinolab"
"""a hidden object: here is a run root"""

NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed"}
REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
WITHOUT_CREDENTIALS = ("169.254.", "metadata.google")
"""where those of a machine in the cloud are asked for, as the last resort"""
BUSY = {"408", "425", "429"}
NOT_NOW = {"ConditionalRequestConflict", "NoSuchUpload"}
"""what storages say when a put met another, and when a finished upload is finished again"""

T = TypeVar("T")


@dataclass(frozen=True)
class _Provider:
    """What differs between providers, for people."""

    open: Callable[..., Any]
    bucket: str
    credentials: str
    endpoints: tuple[str, ...] = ()
    """environment variables that name another server"""


PROVIDERS = {
    "s3": _Provider(
        S3Store,
        "bucket",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_ENDPOINT_URL"),
    ),
    "gs": _Provider(GCSStore, "bucket", "GOOGLE_APPLICATION_CREDENTIALS", ("GOOGLE_BASE_URL",)),
    "az": _Provider(
        AzureStore,
        "container",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    ),
}


class _AbsentError(Exception):
    """There is no such object."""


@dataclass(frozen=True)
class _Problem:
    """Why a request failed, what to do, and whether that may pass by itself."""

    why: str
    to_do: str
    may_pass: bool = False


ABSENT = _Problem("it is not there", "mend that")


def open_object_store(address: str, *, make: bool = False) -> "ObjectStore":
    """The store at `address`, one of s3://, gs:// and az://.

    With `make` it is made if need be, and must be one that can be written. Raises RootError, one
    line, when it is not there or cannot be used.
    """
    scheme, _, given = address.partition("://")
    provider = PROVIDERS[scheme]
    # A secret may hold a slash or a question mark: what stands before an @ is never shown.
    parts = urlsplit(f"//{given.rpartition('@')[2]}")
    bucket = parts.netloc
    shown = printable(f"{scheme}://{bucket}{parts.path}".rstrip("/"))
    if "@" in given or parts.query or parts.fragment:
        raise RootError(
            f"run root {shown} was given with a user, a password or options, which would stand in "
            f"logs: give the address alone, and set {provider.credentials} in the environment"
        )
    prefix = parts.path.strip("/")
    try:
        checked("/".join(filter(None, (bucket, prefix))))
    except ValueError:
        raise RootError(
            f"run root {shown} is no address: give {scheme}://{provider.bucket.upper()}/NAME"
        ) from None
    store = ObjectStore(scheme, bucket, prefix, shown)
    store.open(make=make)
    return store


class ObjectStore:
    """Objects below a prefix of a bucket. Raises RootError when the environment is wrong."""

    def __init__(self, scheme: str, bucket: str, prefix: str, shown: str) -> None:
        self.shown = shown
        self.local: Path | None = None
        self._given = (scheme, bucket, prefix, shown)
        self._provider = PROVIDERS[scheme]
        self._bucket = bucket
        self._server, options = _server(self._provider)
        try:
            # Each try is our own, so that a put knows of earlier ones and Ctrl-C ends the waiting.
            # Only the parts of a file are tried again by obstore: they are no objects yet.
            self._once, self._in_parts = (
                self._provider.open(
                    bucket,
                    prefix=prefix or None,
                    client_options={"timeout": timedelta(seconds=REQUEST_S), **options},
                    retry_config={
                        "max_retries": retries,
                        "retry_timeout": timedelta(seconds=PATIENCE_S),
                        "backoff": {"max_backoff": timedelta(seconds=LONGEST_PAUSE_S)},
                    },
                )
                for retries in (0, 100)
            )
        except (BaseError, OSError, ValueError):
            raise RootError(
                f"{shown} cannot be used with what the environment says; set "
                f"{self._provider.credentials} as the provider gave them"
            ) from None

    def __reduce__(self) -> tuple[type["ObjectStore"], tuple[str, ...]]:
        # Another process takes the credentials of its own environment.
        return ObjectStore, self._given

    def open(self, *, make: bool) -> None:
        """Raises RootError when the root is not there or, to `make` it, cannot be written."""
        try:
            if make:
                self._make()
            elif self._get(MARK, PATIENCE_AT_OPENING_S) is None and not self.names():
                # One that was copied there has no mark.
                raise RootError(
                    f"run root {self.shown} is not there: give another --root, or run a study first"
                )
        except StoreError as error:
            raise RootError(str(error)) from None

    def _make(self) -> None:
        mark = f"{self.shown}\n".encode()
        is_first = self._put_if_absent(MARK, mark, PATIENCE_AT_OPENING_S)
        if is_first and self._put_if_absent(MARK, mark + b"again\n", PATIENCE_AT_OPENING_S):
            raise RootError(
                f"{self.shown} cannot be used (the storage makes an object again although it was "
                "asked to only if there is none, so that results could be lost); take another "
                "storage, or a newer version of it"
            )

    def get(self, key: str) -> bytes | None:
        """See Store."""
        return self._get(checked(key))

    def names(self, prefix: str = "") -> list[str]:
        """See Store."""
        below = checked(prefix) if prefix else None
        found = self._answer(prefix, "listed", lambda: self._once.list_with_delimiter(below))
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        names = {path.rpartition("/")[2] for path in paths}
        return sorted(name for name in names if not name.startswith("."))

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        """See Store."""
        checked(key)
        if if_absent:
            return self._put_if_absent(key, content)
        self._answer(key, "written", lambda: self._once.put(key, content, use_multipart=False))
        return True

    def put_file(self, key: str, path: Path) -> None:
        """See Store."""
        checked(key)
        with _own(path):
            size = path.stat().st_size
            if size <= PART:
                self.put(key, path.read_bytes())
                return
            part = max(PART, -(-size // MOST_PARTS))
            self._answer(
                key,
                "written",
                lambda: self._in_parts.put(key, path, chunk_size=part, max_concurrency=PARALLEL),
            )

    def get_file(self, key: str, path: Path) -> bool:
        """See Store."""
        try:
            # The body is left: one request need not be able to bring it.
            found = self._answer(checked(key), "read", lambda: self._once.get(key).meta)
            # Nobody changes a large object; if it happens all the same, none is made of two.
            of_one = {"if_match": found["e_tag"]} if found["e_tag"] else {}
            with (
                _own(path),
                atomic.replacing_by_name(path) as written,
                ThreadPoolExecutor(PARALLEL) as pool,
            ):

                def fetch(start: int) -> None:
                    options = {"range": (start, min(start + PART, found["size"])), **of_one}
                    part = self._answer(
                        key, "read", lambda: self._once.get(key, options=options).bytes()
                    )
                    with written.open("r+b") as file:
                        file.seek(start)
                        file.write(part)

                for _ in pool.map(fetch, range(0, found["size"], PART)):
                    pass
        except _AbsentError:
            return False
        return True

    def delete(self, key: str) -> None:
        """See Store."""
        with contextlib.suppress(_AbsentError):
            self._answer(checked(key), "deleted", lambda: self._once.delete(key))

    def _get(self, key: str, patience: float | None = None) -> bytes | None:
        try:
            return self._answer(key, "read", lambda: bytes(self._once.get(key).bytes()), patience)
        except _AbsentError:
            return None

    def _put_if_absent(self, key: str, content: bytes, patience: float | None = None) -> bool:
        tries = 0

        def put() -> None:
            nonlocal tries
            tries += 1
            self._once.put(key, content, mode="create")

        try:
            self._answer(key, "written", put, patience)
        except AlreadyExistsError:
            # An earlier try may have arrived although its answer did not.
            return tries > 1 and self._get(key, patience) == content
        return True

    def _answer(
        self, key: str, what: str, ask: Callable[[], T], patience: float | None = None
    ) -> T:
        """What `ask` returns; it is asked again, for `patience` seconds, while that may help.

        Raises StoreError, one line; _AbsentError when what is to be read or deleted is not there;
        AlreadyExistsError when what may only be made is.
        """
        until = time.monotonic() + (PATIENCE_S if patience is None else patience)
        pause = SHORTEST_PAUSE_S
        while True:
            try:
                return ask()
            except (BaseError, OSError) as error:
                problem = self._problem(error)
                if not problem:
                    raise
                if problem is ABSENT and what in ("read", "deleted"):
                    raise _AbsentError from None
            if not problem.may_pass or time.monotonic() + pause > until:
                where = self.shown if key in ("", MARK) else f"{self.shown}/{key}"
                raise StoreError(
                    f"{where} cannot be {what} ({problem.why}); {problem.to_do}, and run the same "
                    "command again"
                )
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _problem(self, error: Exception) -> _Problem | None:
        """None: something is there already."""
        if isinstance(error, OSError) and error.errno:
            return _Problem(reason(error), "mend that")
        text = str(error)
        status = _first(r"status code: (\d{3})", text)
        code = _first(r"<Code>(\w{1,60})</Code>", text)
        says = f"the storage{self._server} says {' '.join(filter(None, (status, code)))}"
        credentials = self._provider.credentials
        if code in NO_BUCKET:
            return _Problem(
                f"there is no {self._provider.bucket} {self._bucket}",
                "make it or give another --root",
            )
        if any(place in text for place in WITHOUT_CREDENTIALS):
            return _Problem("no credentials were found", f"set {credentials}")
        no_token = "token request" in text and re.match("4", status or "") and status not in BUSY
        is_refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if is_refused or no_token or code in REFUSED:
            return _Problem(f"{says} to these credentials", f"set {credentials} of one who may")
        if code in ELSEWHERE or status == "301" or "redirect without" in text:
            return _Problem("the bucket is in another region", "set AWS_REGION")
        if code in NOT_NOW or status in BUSY or (status or "").startswith("5"):
            return _Problem(says, "wait until it works", may_pass=True)
        if isinstance(error, AlreadyExistsError):
            return None
        if isinstance(error, FileNotFoundError):
            return ABSENT
        if "HTTP error: builder error" in text:
            endpoint = self._provider.endpoints[-1]
            return _Problem("http:// is only asked when the environment says so", f"set {endpoint}")
        if status is None and "HTTP error" in text:
            endpoint = "".join(f" or {name}" for name in self._provider.endpoints[-1:])
            return _Problem(
                f"the storage{self._server} does not answer",
                f"mend the network{endpoint}",
                may_pass=True,
            )
        return _Problem(says if status else f"{type(error).__name__} of obstore", "mend that")

    # The last one: behind it, `list` is this method.
    def list(self, prefix: str = "") -> list[Entry]:
        """See Store."""
        below = checked(prefix) if prefix else None

        def entries() -> list[Entry]:
            return [
                Entry(one["path"], one["size"], one["last_modified"].timestamp())
                for page in self._once.list(below)
                for one in page
                if not any(name.startswith(".") for name in one["path"].split("/"))
            ]

        return sorted(self._answer(prefix, "listed", entries), key=lambda entry: entry.key)


@contextlib.contextmanager
def _own(path: Path) -> Iterator[None]:
    """Errors of a file on this machine, in one line. Raises StoreError."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be used ({reason(error)}); mend that, and run the same command again"
        ) from error


def _server(provider: _Provider) -> tuple[str, dict[str, Any]]:
    """What to call the server that the environment names, if any, and how obstore may ask it."""
    named = next((name for name in provider.endpoints if os.environ.get(name)), None)
    if named is None:
        return "", {}
    found = re.fullmatch(ENDPOINT, os.environ[named])
    if found is None or int(found["port"] or 0) > 65_535:
        raise RootError(f"{named} is no address: set it to https://HOST or http://HOST:PORT")
    return f" at {found['host']}", {"allow_http": found["scheme"] == "http"}


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None
