"""A server of objects in this process, which can be made to fail: for tests of what uses a store.

It speaks S3, as moto does, or Google's protocol.
"""

import contextlib
import logging
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

FAULTS = ("503", "lost", "answered 503", "answer lost", "answer cut")
"""not done and refused, not done and no answer, done but refused, done but no answer or half"""
SECRET = "planted/secret+of=nobody"


class ObjectServer:
    """Buckets behind `address`. `faults` befall the next requests, one each; "" is none.

    A fault is one of FAULTS, `hang` for ever, or a status such as `403 AccessDenied`. With a `rate`
    each request meets one of FAULTS by chance. A page of a list has three objects. `application`
    (WSGI) is what answers the others.
    """

    def __init__(self, application: Any) -> None:
        # Slow to import, and not needed by all who import this file.
        from werkzeug.serving import make_server

        self.application = application
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.rate = 0.0
        self._random = random.Random(0)
        self._one_at_a_time = threading.Lock()
        self._closed = threading.Event()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def make_bucket(self, name: str, authorization: str) -> None:
        headers = {"Authorization": authorization}
        with urlopen(Request(f"{self.address}/{name}", method="PUT", headers=headers)):
            pass

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _fault(self) -> str:
        if self.faults:
            return self.faults.pop(0)
        return self._random.choice(FAULTS) if self._random.random() < self.rate else ""

    def _answer(self, environ: dict[str, Any], start: Any) -> Any:
        fault = self._fault()
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if "list-type=2" in environ["QUERY_STRING"]:
            environ["QUERY_STRING"] += "&max-keys=3"
        if fault == "hang":
            self._closed.wait(60)
        if fault in ("", "answered 503", "answer lost", "answer cut"):
            with self._one_at_a_time:
                given: list[Any] = []
                body = b"".join(self.application(environ, lambda *all: given.extend(all)))
            status, headers = given[:2]
        if fault == "":
            start(status, headers)
            return [body]
        if fault == "answer cut":
            start(status, [*headers, ("Content-Length", str(len(body)))])
            return self._cut(environ, body)
        if fault in ("hang", "lost", "answer lost"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            start("500 Lost", [])
            return []
        status = "503 SlowDown" if "503" in fault else fault
        if fault != "answered 503":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [])
        return [f"<Error><Code>{status.split()[1]}</Code></Error>".encode()]

    def _cut(self, environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def object_server(scheme: str = "s3") -> Iterator[ObjectServer]:
    """A server, `s3` or `gs`, with the bucket `bucket`, while the block runs; see `credentials`."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    if scheme == "s3":
        # Slow to import, as above.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        server = ObjectServer(DomainDispatcherApplication(create_backend_app))
        who = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"
        server.make_bucket("bucket", f"{who}, SignedHeaders=host, Signature=x")
    else:
        from tests.trainers.system.google_storage import GoogleStorage

        server = ObjectServer(GoogleStorage(SECRET))
        server.make_bucket("bucket", f"Bearer {SECRET}")
    try:
        yield server
    finally:
        server.close()


def credentials(server: ObjectServer, monkeypatch: pytest.MonkeyPatch, scheme: str = "s3") -> None:
    """Let the environment name the server, and a secret that must not be seen."""
    if scheme == "gs":
        monkeypatch.setenv("GOOGLE_BASE_URL", server.address)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", SECRET)
        return
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"id-{SECRET}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
