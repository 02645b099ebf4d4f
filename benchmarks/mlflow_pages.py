"""How long until the pages of a large study are usable in MLflow, in a real browser?

    python -m benchmarks.mlflow_pages [--arms 20] [--seeds 15]

A study that was never trained is mirrored to a SQLite store and served by `mlflow server`. Each
page is opened in Chromium by the link that `dinolab ui` prints, and is usable once its charts are
drawn, or its words are there. There is no peer.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.browser import chromium
from tests.orchestrator.conftest import dinolab
from tests.orchestrator.tracking.conftest import server
from tests.orchestrator.tracking.synthetic import DRAWN, mirrored_study
from trainers.system.store import LocalStore

CHARTS = {"runs by arm, curves": "lines", "arms compared": "arm-1"}
"""Pages with charts, and what their data then hold."""

WORDS = {"claims, verdicts, report": "registration 1", "what arms change": "model.depth"}
"""Pages without, and what they say."""

PATIENCE_MS = 300_000


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=15)
    given = parser.parse_args()
    executable = shutil.which("chromium")
    if executable is None:
        raise SystemExit("needs the browser chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = LocalStore(folder / "runs", make=True)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/server.db"
        began = time.monotonic()
        mirrored_study(store, given.arms, given.seeds)
        runs = given.arms * given.seeds
        print(f"mirroring {runs} runs: {time.monotonic() - began:.1f} s")
        with server(folder) as uri, chromium(executable) as browser:
            _, output = dinolab("ui", "mini", "--root", store.root, MLFLOW_TRACKING_URI=uri)
            links = dict(
                line.strip().split(": http") for line in output.splitlines() if "/#/" in line
            )
            for shows in (*CHARTS, *WORDS):
                page = browser.new_page(viewport={"width": 1500, "height": 1000})
                page.set_default_timeout(PATIENCE_MS)
                began = time.monotonic()
                page.goto(f"http{links[shows]}")
                if shows in CHARTS:
                    page.wait_for_function(DRAWN, arg=CHARTS[shows])
                else:
                    page.get_by_text(WORDS[shows]).first.wait_for()
                print(f"{shows}: usable after {time.monotonic() - began:.1f} s")
                page.close()


if __name__ == "__main__":
    main()
