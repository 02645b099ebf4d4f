"""`python -m orchestrator` is the same as `dinolab`."""

from orchestrator.cli.entry import main

main()
