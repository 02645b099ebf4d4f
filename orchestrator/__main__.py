"""`python -m orchestrator` is the same as `dinolab`."""

from orchestrator.cli import main

main()
