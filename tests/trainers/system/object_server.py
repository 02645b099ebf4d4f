"""A real S3 server in this process, which can be made to fail: for tests of what uses a store."""

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
    each request meets one of FAULTS by chance. A page of a list has three objects.
    """

    def __init__(self) -> None:
        # Slow to import, and not needed by all who import this file.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.faults: list[str] = []
        self.requests: list[str] = []
        self.rate = 0.0
        self._random = random.Random(0)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._closed = threading.Event()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def make_bucket(self, name: str) -> None:
        who = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"
        headers = {"Authorization": f"{who}, SignedHeaders=host, Signature=x"}
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
                body = b"".join(self._moto(environ, lambda *all: given.extend(all)))
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
def object_server() -> Iterator[ObjectServer]:
    """A server with the bucket `bucket`, while the block runs; see `credentials`."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ObjectServer()
    server.make_bucket("bucket")
    try:
        yield server
    finally:
        server.close()


def credentials(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name the server, and a secret that must not be seen."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"id-{SECRET}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
