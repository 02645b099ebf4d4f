"""`python -m orchestrator` is the same as `dinolab`."""

from orchestrator.cli.studies import main

main()
