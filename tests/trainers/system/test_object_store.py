"""A store on object storage, S3 or Google's, whose answers are late, lost, cut or refusals."""

import base64
import json
import pickle
import random
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.trainers.system.google_storage import GoogleStorage
from tests.trainers.system.object_server import (
    FAULTS,
    SECRET,
    ObjectServer,
)
from trainers.errors import InputError, RootError, StoreError
from trainers.system import object_store
from trainers.system.object_store import PROVIDERS
from trainers.system.store import Store, open_store

# What others warn of in their own code is not ours.
pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{name}\..*")
    for name in ("moto", "botocore", "flask", "werkzeug")
]


@pytest.fixture(params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def endpoint(scheme: str) -> str:
    """The variable that names the server."""
    return PROVIDERS[scheme].endpoints[-1]


@pytest.mark.parametrize("fault", [*FAULTS, "500 InternalError", "429 TooManyRequests"])
def test_a_put_is_true_for_who_put_although_he_was_told_it_failed(
    objects: Store, server: ObjectServer, fault: str
):
    server.faults = [fault, fault]
    assert objects.put("a", b"mine", if_absent=True)
    server.faults = [fault, fault]
    assert not objects.put("a", b"other", if_absent=True)
    assert objects.get("a") == b"mine"


def test_a_put_is_not_true_for_who_puts_the_same_as_another(objects: Store):
    assert objects.put("a", b"same", if_absent=True)
    assert not objects.put("a", b"same", if_absent=True)


def test_a_conditional_put_that_met_another_is_tried_again(objects: Store, server: ObjectServer):
    server.faults = ["409 ConditionalRequestConflict"]
    assert objects.put("a", b"mine", if_absent=True)


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("fault", ["answered 503", "lost"])
def test_an_upload_in_parts_outlives_errors(
    objects: Store,
    server: ObjectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    fault: str,
):
    monkeypatch.setattr(object_store, "PART", 5 << 20)
    content = random.Random(0).randbytes(6 << 20)
    (tmp_path / "sent").write_bytes(content)
    server.faults = [""] * at + [fault]
    objects.put_file("a", tmp_path / "sent")
    assert objects.get_file("a", tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == content


def test_a_request_without_an_answer_is_made_again(
    address: str, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(object_store, "REQUEST_S", 0.5)
    objects = open_store(address, make=True)
    server.faults = ["hang"]
    assert objects.put("a", b"1", if_absent=True)
    server.faults = ["hang"]
    assert objects.get("a") == b"1"


def test_a_file_that_cannot_be_brought_leaves_the_old_one(
    objects: Store, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(object_store, "PART", 1000)
    objects.put("a", bytes(5000))
    path = tmp_path / "here"
    path.write_bytes(b"old")
    server.faults = ["", "", "403 AccessDenied"]
    with pytest.raises(StoreError, match=r"a cannot be read \(.*403 AccessDenied"):
        objects.get_file("a", path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def said(do: Callable[[], object], kind: type[Exception] = StoreError) -> str:
    """What the error says, in one line; it, its traceback and its pickle show no secret."""
    with pytest.raises(kind) as caught:
        do()
    shown = "".join(traceback.format_exception(caught.value)) + repr(pickle.dumps(caught.value))
    assert SECRET not in shown
    assert "Debug source" not in shown
    assert "\n" not in str(caught.value)
    assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))
    return str(caught.value)


def test_a_storage_that_stays_away_is_one_line(
    objects: Store, server: ObjectServer, endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(object_store, "PATIENCE_S", 0.05)
    server.faults = ["503"] * 1000
    host = server.address.removeprefix("http://")
    does = (
        ("a/b cannot be read", lambda: objects.get("a/b")),
        ("a/b cannot be written", lambda: objects.put("a/b", b"")),
        ("a/b cannot be written", lambda: objects.put("a/b", b"", if_absent=True)),
        ("a/b cannot be deleted", lambda: objects.delete("a/b")),
        ("a cannot be listed", lambda: objects.list("a")),
        ("a cannot be listed", lambda: objects.names("a")),
    )
    for what, do in does:
        assert said(do) == (
            f"{objects.shown}/{what} (the storage at {host} says 503 SlowDown); wait until it "
            "works, and run the same command again"
        )
    server.faults = ["lost"] * 1000
    for what, do in does:
        assert said(do) == (
            f"{objects.shown}/{what} (the storage at {host} does not answer); mend the network or "
            f"{endpoint}, and run the same command again"
        )


def test_a_bucket_that_goes_away_is_an_error_and_no_absence(
    server: ObjectServer, objects: Store, tmp_path: Path
):
    (tmp_path / "x").write_bytes(b"")
    for do in (
        lambda: objects.get("a"),
        lambda: objects.get_file("a", tmp_path / "x"),
        lambda: objects.put_file("a", tmp_path / "x"),
        lambda: objects.delete("a"),
        objects.list,
    ):
        server.faults = ["404 NoSuchBucket"]
        assert "there is no bucket bucket); make it or give another --root" in said(do)


def test_a_store_that_travels_leaves_its_secrets_at_home(objects: Store):
    assert SECRET not in repr(pickle.dumps(objects)) + repr(vars(objects))


OPENED_WRONG = {
    "no-bucket": ("SCHEME://of-nobody/x", [], "there is no bucket of-nobody"),
    "refused": ("SCHEME://bucket/x", ["403 AccessDenied"], "says 403 AccessDenied to these cred"),
    "mistyped": ("SCHEME://bucket/x", ["403 SignatureDoesNotMatch"], "set CREDENTIALS of one"),
    "region": ("SCHEME://bucket/x", ["301 PermanentRedirect"], "set AWS_REGION"),
    "user": (
        f"SCHEME://id:{SECRET}@bucket/x",
        [],
        "run root SCHEME://bucket/x was given with a user",
    ),
    "user-odd": (
        f"SCHEME://id:{SECRET}?{SECRET}#@bucket/x?y={SECRET}",
        [],
        "run root SCHEME://bucket/x w",
    ),
    "user-alone": ("SCHEME://key@bucket/x", [], "run root SCHEME://bucket/x was given with a user"),
    "options": (
        f"SCHEME://bucket/x?secret_access_key={SECRET}",
        [],
        "run root SCHEME://bucket/x was",
    ),
    "fragment": (
        f"SCHEME://bucket/x#{SECRET}",
        [],
        "run root SCHEME://bucket/x was given with a user",
    ),
    "nothing": ("SCHEME://", [], "give SCHEME://BUCKET/NAME"),
    "no-name": ("SCHEME://bucket/a//b", [], "give SCHEME://BUCKET/NAME"),
    "up": ("SCHEME://bucket/../b", [], "give SCHEME://BUCKET/NAME"),
    "other": ("ftp://bucket/x", [], "give a path, file://, s3://, gs://, az://"),
    "azure": ("az://container/x", [], "set AZURE_STORAGE_ACCOUNT_NAME and"),
}


@pytest.mark.parametrize("case", OPENED_WRONG)
@pytest.mark.parametrize("make", [True, False])
def test_what_cannot_be_opened_is_one_line_without_secrets(
    server: ObjectServer, scheme: str, case: str, make: bool
):
    root, faults, expected = OPENED_WRONG[case]
    server.faults = list(faults)
    root, expected = root.replace("SCHEME", scheme), expected.replace("SCHEME", scheme)
    expected = expected.replace("CREDENTIALS", PROVIDERS[scheme].credentials)
    assert expected in said(lambda: open_store(root, make=make), InputError)


def test_no_network_is_one_line_at_opening(
    server: ObjectServer, scheme: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    root = f"{scheme}://bucket/x"
    monkeypatch.setattr(object_store, "PATIENCE_AT_OPENING_S", 0.05)
    monkeypatch.setenv(endpoint, "http://127.0.0.1:9/below")
    line = said(lambda: open_store(root, make=True), RootError)
    assert f"(the storage at 127.0.0.1:9 does not answer); mend the network or {endpoint}" in line
    for wrong in (
        f"{SECRET}:9",
        f"ftp://{SECRET}",
        f"http://h:{SECRET}",
        f"http://id:{SECRET}@127.0.0.1:9",
        "http://127.0.0.1:99999",
        "http://a b",
        "http://",
    ):
        monkeypatch.setenv(endpoint, wrong)
        line = said(lambda: open_store(root), RootError)
        assert line.startswith(f"{endpoint} is no address: set it to https://HOST")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_root_is_made_and_opened_although_requests_fail(
    server: ObjectServer, address: str, fault: str
):
    server.faults = [fault, "", fault]
    assert open_store(address, make=True).list() == []
    server.faults = [fault]
    assert open_store(address).list() == []


def test_a_storage_that_ignores_conditions_is_refused(
    server: ObjectServer, address: str, monkeypatch: pytest.MonkeyPatch
):
    """As of some that speak S3; of two attempts both would believe that theirs counts."""
    plain = server.application

    def ignoring(environ, start):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)
        return plain(environ, start)

    monkeypatch.setattr(server, "application", ignoring)
    assert "take another storage" in said(lambda: open_store(address, make=True), RootError)


@pytest.fixture
def google(running_gs: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> GoogleStorage:
    """Google's storage at GOOGLE_BASE_URL, and nothing that says who asks."""
    monkeypatch.setenv("GOOGLE_BASE_URL", running_gs.address)
    monkeypatch.setattr(object_store, "PATIENCE_AT_OPENING_S", 0.05)
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, running_gs.address.removeprefix("http://"))
    application: GoogleStorage = running_gs.application
    monkeypatch.setattr(application, "of_machine", None)
    return application


def test_a_key_file_that_the_environment_names_signs_what_is_asked(
    google: GoogleStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def is_signed(token: str) -> bool:
        signed, _, signature = token.rpartition(".")
        key.public_key().verify(
            base64.urlsafe_b64decode(f"{signature}=="), signed.encode(), PKCS1v15(), SHA256()
        )
        return True

    monkeypatch.setattr(google, "is_known", is_signed)
    account = {"type": "service_account", "client_email": "x@y", "private_key_id": "1"}
    (tmp_path / "key.json").write_text(json.dumps({**account, "private_key": pem}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    store = open_store("gs://bucket/signed", make=True)
    assert store.put("a", b"1", if_absent=True)
    assert store.get("a") == b"1"


def test_a_machine_of_the_cloud_is_given_its_token(
    google: GoogleStorage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(google, "of_machine", SECRET)
    assert open_store("gs://bucket/of-a-machine", make=True).put("a", b"1", if_absent=True)


@pytest.mark.parametrize("status", [408, 429])
def test_a_busy_server_of_tokens_is_asked_again(
    google: GoogleStorage, monkeypatch: pytest.MonkeyPatch, status: int
):
    monkeypatch.setattr(google, "of_machine", SECRET)
    # A machine asks under a name and under an address of that server.
    monkeypatch.setattr(google, "refusals", [status, status])
    monkeypatch.setattr(object_store, "PATIENCE_AT_OPENING_S", 10)
    store = open_store(f"gs://bucket/busy-{status}", make=True)
    assert google.refusals == []
    assert store.put("a", b"1", if_absent=True)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "set GOOGLE_APPLICATION_CREDENTIALS of one who may"),
        ("", "set GOOGLE_APPLICATION_CREDENTIALS as the provider gave them"),
        ("{}", "set GOOGLE_APPLICATION_CREDENTIALS as the provider gave them"),
        ('{"type": "external_account"}', "set GOOGLE_APPLICATION_CREDENTIALS as the provider"),
    ],
)
def test_credentials_that_are_none_are_one_line(
    google: GoogleStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
    expected: str,
):
    if key is not None:
        (tmp_path / SECRET.replace("/", "")).write_text(key)
        path = str(tmp_path / SECRET.replace("/", ""))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
    assert expected in said(lambda: open_store("gs://bucket/x", make=True), RootError)


def test_a_key_file_that_names_a_server_without_encryption_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server = {"gcs_base_url": "http://127.0.0.1:9", "disable_oauth": True}
    account = {"client_email": "", "private_key": "", "private_key_id": ""}
    (tmp_path / "key.json").write_text(json.dumps({**account, **server}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
    line = said(lambda: open_store("gs://bucket/x", make=True), RootError)
    assert "set GOOGLE_BASE_URL, and" in line


def test_without_obstore_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "trainers.system.object_store")
    monkeypatch.delattr("trainers.system.object_store")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(RootError, match=r"pip install 'dinolab\[storage\]'"):
        open_store("s3://bucket/x")


def test_a_folder_needs_no_obstore():
    code = "import sys, trainers.system.store; assert 'obstore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
