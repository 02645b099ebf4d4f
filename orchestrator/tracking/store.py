"""The MLflow store: where it is, what is wrong with one, and how a new one is made.

A SQLite store is made under another name and put in its place when it is whole: whoever is stopped
while making one leaves none, and two that make one at once both find it whole.
"""

import contextlib
import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

# Before mlflow is imported: a dead server is a clear line within a minute, not retried for several.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# What goes wrong arrives as an exception, and is said in one line; MLflow logs tracebacks besides.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow.store.db_migrations
import sqlalchemy
import urllib3.exceptions
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestrator.tracking.where import has_store, logs_teachers, own_file
from trainers.errors import InputError, StoreError, first_line
from trainers.system import atomic
from trainers.system.storage import locate
from trainers.system.store import refuse_gone

ANSWER_WITHIN_S = 45.0
"""A store that takes longer to open does not answer."""

ARTIFACTS = "mlflow-artifacts"
"""Folder of a run root in which the artifacts of its own store lie."""

Result = TypeVar("Result")


def tracking_uri(root: Path | None) -> str:
    """MLFLOW_TRACKING_URI when it is set, its SQLite file absolute; else a file in the run root.

    Raises InputError where there is neither.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        if root is None:
            raise InputError(
                "a run root on object storage has no MLflow store of its own; set "
                "MLFLOW_TRACKING_URI to that of a server"
            )
        return _sqlite_uri(own_file(root))
    file = _sqlite_file(given)
    return given if file is None else _sqlite_uri(file)


def check_store(root: Path | None) -> None:
    """Raises InputError when the store of a run root cannot be used; writes no file."""
    logs_teachers()
    if not has_store(root):
        return
    uri = tracking_uri(root)

    def look() -> None:
        file = _sqlite_file(uri)
        if file is None:
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        elif file.exists() and _is_half_made(file) and not _is_own(file, root):
            raise InputError(
                f"MLflow store {file} has no experiments: it was never made whole, or it belongs "
                "to another program; give another file"
            )

    in_time(uri, look)


def open_store(root: Path | None, say: Callable[[str], None]) -> MlflowClient:
    """A client of the run root's store, which is made when it is not there.

    `say` gets a line when a half-made store was set aside. Raises StoreError when the run root is
    gone, and whatever MLflow raises.
    """
    # Ray, which is up by now, may have put loggers back to what they say by themselves.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    uri = tracking_uri(root)
    file = _sqlite_file(uri)
    if file is not None:
        # A connection that is kept open would go on writing to a file that was deleted.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        if root is not None and _is_own(file, root):
            refuse_gone(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        with locate(str(file.parent)).held():
            is_left = _is_own(file, root) and identity(uri) is None
            if not is_left and _is_own(file, root) and _is_half_made(file):
                say(f"MLflow store {file} was never made whole: set aside as {_set_aside(file)}")
            if is_left or not file.exists():
                made = _new_store(root or file.parent)
                # Which takes seconds: a folder that is gone by now must not be made anew.
                with atomic.replacing(file) as written:
                    written.write(made)
        if root is not None and _is_own(file, root):
            _bring_artifacts_home(file, root)
    return MlflowClient(tracking_uri=uri)


def identity(uri: str) -> tuple[int, int] | None:
    """Device and inode of the file of a store; None where there is none with anything in it.

    SQLite leaves an empty one where the file was deleted while somebody wrote to it.
    """
    file = _sqlite_file(uri)
    with contextlib.suppress(OSError):
        if file is not None and (found := file.stat()).st_size:
            return found.st_dev, found.st_ino
    return None


def is_gone(uri: str, opened: tuple[int, int] | None) -> bool:
    """Whether the file of a store is not that which was opened, whose identity is `opened`.

    Who has it open would not notice.
    """
    return _sqlite_file(uri) is not None and (opened is None or identity(uri) != opened)


def artifact_location(root: Path | None, experiment: str) -> str | None:
    """Where artifacts go when the store is a file: into the run root, or beside the file.

    None for a server, which decides that itself.
    """
    file = _sqlite_file(tracking_uri(root))
    if file is None:
        return None
    return ((root or file.parent).resolve() / ARTIFACTS / experiment).as_uri()


def in_time(uri: str, work: Callable[[], Result]) -> Result:
    """What `work` on the store returns.

    Raises InputError, in one line, for whatever is wrong with the store, and when it has not
    answered within ANSWER_WITHIN_S; StoreError where the run root is gone.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            future.set_exception(error)

    # No library's own patience counts, and the thread ends with the process.
    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(ANSWER_WITHIN_S)
    except (InputError, StoreError):
        raise
    except Exception as error:
        what = _trouble(error) if future.done() else f"{_NOTHING} within {ANSWER_WITHIN_S:.0f} s"
        raise InputError(_unusable(uri, what)) from error


def explained(uri: str, error: BaseException) -> str:
    """What an error of any library says of a store, and what to do, in one line."""
    return _unusable(uri, _trouble(error))


def _unusable(uri: str, what: str) -> str:
    return f"MLflow store {shown(uri)} cannot be used: {_advice(uri, what)}"


_NOTHING = "no answer"
_LOGIN = "it refuses the login"
_SCHEMA = "its tables are of another version of MLflow"


def _trouble(error: BaseException) -> str:
    """That the store does not answer, or what it refuses, in words."""
    if isinstance(error, MlflowException):
        if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return f"{_LOGIN} ({error.error_code})"
        if versions := re.search(r"out-of-date database schema \((.*?)\)", str(error)):
            return f"{_SCHEMA} ({versions[1]})"
    chain = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    from_database = any(isinstance(one, sqlalchemy.exc.SQLAlchemyError) for one in chain)
    unanswered = any(isinstance(one, _NO_ANSWER) for one in chain) or (
        isinstance(error, sqlalchemy.exc.OperationalError)
        and not isinstance(error.orig, sqlite3.Error)
    )
    cause = chain[-1] if unanswered or from_database else error
    said = getattr(cause, "strerror", None) or first_line(cause)
    what = "it does not answer" if unanswered else "it refuses"
    return f"{what} ({said[:200]})"


_NO_ANSWER = (
    ConnectionError,
    TimeoutError,
    urllib3.exceptions.MaxRetryError,
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.ProtocolError,
)


def shown(uri: str) -> str:
    """A store's address without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri


_MOVE_IT_AWAY = "move that file away: the next run writes a new one from the runs"


def _advice(uri: str, what: str) -> str:
    """What is wrong, and what to do; of an address that is none MLflow's own words say little."""
    beside = "unset MLFLOW_TRACKING_URI to write beside the runs"
    if what.startswith(_LOGIN):
        return (
            f"{what}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            f"MLFLOW_TRACKING_TOKEN, to those of somebody who may write there, or {beside}"
        )
    if what.startswith(_SCHEMA):
        return f"{what}; run `mlflow db upgrade` on it, a copy kept, or {beside}"
    if uri.startswith("sqlite") and what.startswith(_NOTHING):
        return (
            f"{what}: this machine is too busy, or another program has locked that file; the same "
            "command, given later, writes what is missing"
        )
    if uri.startswith("sqlite"):
        return f"{what}; {_MOVE_IT_AWAY}"
    if uri.startswith(("http://", "https://")):
        return f"{what}; start that server, or {beside}"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"the address of a server begins with http://; give http://{uri}, or {beside}"
    if "://" not in uri or uri.startswith("file:"):
        return f"MLflow writes to no folder; give http://SERVER or sqlite:///FILE, or {beside}"
    return f"{what}; give http://SERVER, sqlite:///FILE or the address of a database, or {beside}"


def _is_own(file: Path, root: Path | None) -> bool:
    return root is not None and file == own_file(root)


def _sqlite_uri(file: Path) -> str:
    # Plain where that means the same. Else with a driver, which keeps MLflow from making a folder
    # of the quoted name.
    plain = f"sqlite:///{file}"
    if sqlalchemy.make_url(plain).database == str(file):
        return plain
    return sqlalchemy.URL.create("sqlite+pysqlite", database=str(file)).render_as_string()


def _sqlite_file(uri: str) -> Path | None:
    """The absolute file of a SQLite address; None for any other address."""
    if not uri.startswith(("sqlite:", "sqlite+pysqlite:")):
        return None
    try:
        url = sqlalchemy.make_url(uri)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            f"MLflow store {uri} is no address: write sqlite:///FILE, or sqlite:////FILE for an "
            "absolute path"
        ) from error
    if not url.database or url.database == ":memory:" or url.query:
        return None
    return Path(os.path.expanduser(url.database)).absolute()  # noqa: PTH111 (unknown ~name stays)


def _is_half_made(file: Path) -> bool:
    """Whether a SQLite file lacks the experiment that MLflow makes last.

    Raises InputError when it is damaged or of another version of MLflow.
    """
    experiments, version = 0, None
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=20)
        ) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if "experiments" in tables:
                (experiments,) = database.execute("SELECT count(*) FROM experiments").fetchone()
            if "alembic_version" in tables:
                version = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise InputError(
            f"MLflow store {file} cannot be read ({error}); {_MOVE_IT_AWAY}"
        ) from error
    if not experiments:
        return True
    migrations = Path(mlflow.store.db_migrations.__file__).parent
    expected = ScriptDirectory(str(migrations)).get_current_head()
    found = version[0] if version else None
    if found != expected:
        raise InputError(
            f"MLflow store {file} is of another version of MLflow (schema {found}, here "
            f"{expected}); run `mlflow db upgrade` on it, a copy kept, or {_MOVE_IT_AWAY}"
        )
    return False


def _set_aside(file: Path) -> Path:
    number = 1
    while (aside := file.with_name(f"{file.name}.half-made-{number}")).exists():
        number += 1
    for ending in ("-journal", "-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            file.with_name(file.name + ending).rename(aside.with_name(aside.name + ending))
    return aside


def _new_store(root: Path) -> bytes:
    """The content of a SQLite store without runs."""
    # Seldom needed, and slow to import.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        file = Path(scratch) / "mlflow.db"
        store = SqlAlchemyStore(_sqlite_uri(file), (root.resolve() / ARTIFACTS).as_uri())
        store.engine.dispose()
        return file.read_bytes()


def _bring_artifacts_home(file: Path, root: Path) -> None:
    """Let artifacts lie in the run root, wherever it was when MLflow wrote their places."""
    home = (root.resolve() / ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as database, database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            places = database.execute(
                f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%/{ARTIFACTS}/%'"
            ).fetchall()
            for (place,) in places:
                inside = place.rpartition(f"/{ARTIFACTS}/")[2]
                if place != f"{home}/{inside}":
                    database.execute(
                        f"UPDATE {table} SET {column} = ? WHERE {column} = ?",
                        (f"{home}/{inside}", place),
                    )
