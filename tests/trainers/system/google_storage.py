"""Google's storage, as far as a run root asks it: its XML API, in this process's memory.

No emulator serves what a root needs: Google's own has neither lists nor deletes in the XML API,
the others leave conditions of that API aside. This one goes by
https://cloud.google.com/storage/docs/xml-api, and is no proof of what Google does beyond that.
"""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Request, Response

TOKENS = "/computeMetadata/v1/instance/service-accounts/default/token"
"""where a machine of Google's cloud is given its token"""


@dataclass
class Object:
    content: bytes
    generation: int
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def e_tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'

    def headers(self) -> dict[str, str]:
        return {"ETag": self.e_tag, "x-goog-generation": str(self.generation)}


class GoogleStorage:
    """A WSGI application with buckets of objects; `is_known` says which bearer tokens it takes."""

    def __init__(self, token: str) -> None:
        self.is_known: Callable[[str], bool] = lambda given: given == token
        self.of_machine: str | None = None
        """the token it gives to a machine of the cloud, if any"""
        self.refusals: list[int] = []
        """statuses that such a machine is told first"""
        self._buckets: dict[str, dict[str, Object]] = {}
        self._uploads: dict[str, dict[int, Object]] = {}
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        with self._lock:
            return self._answer(Request(environ))(environ, start)

    def _answer(self, request: Request) -> Response:
        if request.path == TOKENS:
            if self.refusals:
                return Response("not now", self.refusals.pop(0))
            if self.of_machine is None:
                return Response("no service account", 404)
            said = f'{{"access_token": "{self.of_machine}", "expires_in": 3600}}'
            return Response(said, content_type="application/json")
        if not self.is_known(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return _refusal(401, "AuthenticationRequired")
        bucket, _, key = request.path[1:].partition("/")
        if not key and request.method == "PUT":
            self._buckets.setdefault(bucket, {})
            return Response()
        if bucket not in self._buckets:
            return _refusal(404, "NoSuchBucket")
        objects = self._buckets[bucket]
        if not key:
            return self._list(objects, request.args)
        if "uploads" in request.args or "uploadId" in request.args:
            return self._in_parts(objects, key, request)
        if request.method == "PUT":
            return self._put(objects, key, request)
        if key not in objects:
            return _refusal(404, "NoSuchKey")
        if request.method == "DELETE":
            del objects[key]
            return Response(status=204)
        return self._get(objects[key], request)

    def _put(self, objects: dict[str, Object], key: str, request: Request) -> Response:
        here = objects[key].generation if key in objects else 0
        asked = request.headers.get("x-goog-if-generation-match")
        if asked is not None and int(asked) != here:
            return _refusal(412, "PreconditionFailed")
        objects[key] = Object(request.get_data(), next(self._count))
        return Response(headers=objects[key].headers())

    def _get(self, found: Object, request: Request) -> Response:
        asked = request.headers.get("If-Match")
        if asked is not None and asked != found.e_tag:
            return _refusal(412, "PreconditionFailed")
        answer = Response(found.content, headers=found.headers())
        answer.last_modified = found.changed
        try:
            return answer.make_conditional(
                request, accept_ranges=True, complete_length=len(found.content)
            )
        except RequestedRangeNotSatisfiable:
            return _refusal(416, "InvalidRange")

    def _list(self, objects: dict[str, Object], asked: Any) -> Response:
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter")
        after, most = asked.get("continuation-token", ""), int(asked.get("max-keys", 1000))
        page: dict[str, str] = {}
        more = ""
        for key in sorted(key for key in objects if key.startswith(prefix)):
            head, deeper, _ = (
                key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            )
            name = f"{prefix}{head}{deeper}" if deeper else key
            if name <= after or name in page:
                continue
            if len(page) == most:
                more = f"<NextContinuationToken>{escape([*page][-1])}</NextContinuationToken>"
                break
            one = objects[key]
            page[name] = (
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                if deeper
                else f"<Contents><Key>{escape(key)}</Key><Generation>{one.generation}</Generation>"
                f"<LastModified>{one.changed:%Y-%m-%dT%H:%M:%S.%f}Z</LastModified>"
                f"<ETag>{one.e_tag}</ETag><Size>{len(one.content)}</Size></Contents>"
            )
        is_cut = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        return _xml("ListBucketResult", "".join([is_cut, more, *page.values()]))

    def _in_parts(self, objects: dict[str, Object], key: str, request: Request) -> Response:
        if "uploads" in request.args:
            upload = f"upload-{next(self._count)}"
            self._uploads[upload] = {}
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        upload = request.args["uploadId"]
        if upload not in self._uploads:
            return _refusal(404, "NoSuchUpload")
        if request.method == "PUT":
            part = Object(request.get_data(), 0)
            self._uploads[upload][int(request.args["partNumber"])] = part
            return Response(headers={"ETag": part.e_tag})
        parts = self._uploads.pop(upload)
        if request.method == "DELETE":
            return Response(status=204)
        named = ElementTree.fromstring(request.get_data()).iterfind(".//{*}PartNumber")
        content = b"".join(parts[int(one.text or "")].content for one in named)
        objects[key] = Object(content, next(self._count))
        answer = _xml("CompleteMultipartUploadResult", f"<ETag>{objects[key].e_tag}</ETag>")
        answer.headers.extend(objects[key].headers())
        return answer


def _xml(name: str, inside: str, status: int = 200) -> Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><{name}>{inside}</{name}>"
    return Response(text, status, content_type="application/xml")


def _refusal(status: int, code: str) -> Response:
    return _xml("Error", f"<Code>{code}</Code>", status)
