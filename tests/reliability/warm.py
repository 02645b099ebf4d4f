"""Imported by the process that tests fork from: each fork begins with a plan that is made."""

import os

from tests.reliability import little

for seeds in (1, 3, 12) if os.environ.get("DINOLAB_SOAK") else (1, 3):
    little.planned(seeds)
