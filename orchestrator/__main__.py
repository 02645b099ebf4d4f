"""`python -m orchestrator` is the same as `dinolab`."""

from typing import NoReturn

from orchestrator import interrupt


def main() -> NoReturn:
    """Run the command line; a signal ends it from the first import on."""
    code = interrupt.INTERRUPTED
    try:
        interrupt.listen()
        interrupt.be_a_command()
        from orchestrator.cli.entry import main as command

        command()
    except KeyboardInterrupt:
        interrupt.tell("interrupted")
    except SystemExit as end:
        if not interrupt.requested():
            # A pipe that is closed, or a disk that is full: Python says it.
            if not isinstance(end.code, int) or not interrupt.flushed():
                raise
            code = end.code
    # Python alone takes seconds to take such large libraries down.
    interrupt.leave(code)


if __name__ == "__main__":
    main()
