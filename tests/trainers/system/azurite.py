"""The emulator of Azure's storage, where it is installed: `npm install --global azurite`."""

import base64
import contextlib
import hashlib
import hmac
import shutil
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""every Azurite's own"""


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """The address of a server with the container `container`, while the block runs.

    Skips the test where there is no Azurite.
    """
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azurite: npm install --global azurite")
    quiet = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with subprocess.Popen(
        [program, "--location", folder, "--blobPort", "0", *quiet],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "listens on" in line)
        address = f"{said.split()[-1]}/{ACCOUNT}"
        _make_container(address, "container")
        try:
            yield address
        finally:
            process.terminate()
            process.communicate()


def _make_container(address: str, name: str) -> None:
    """By the protocol itself: obstore makes none."""
    told = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    # Shared Key: the verb, eleven headers that are not sent, those of x-ms, what is asked for.
    text = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in told.items())
    text += f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    digest = hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)
    told["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    with urlopen(Request(f"{address}/{name}?restype=container", method="PUT", headers=told)):
        pass
