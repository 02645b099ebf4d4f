"""Imported by the process that tests fork from: each fork begins with a plan that is made."""

from tests.reliability import little

for seeds in (1, 3, 12):
    little.planned(seeds)
