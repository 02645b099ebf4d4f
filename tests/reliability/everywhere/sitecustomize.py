"""Python imports this at the start of every process that has the folder on its path."""

import os

if told := os.environ.get("KILLS_TOLD"):
    from tests.reliability.kills import Told

    Told(told).install()
