"""Imported by the process that the tests of a sequential design fork from."""

from tests.reliability import sequential

sequential.planned()
