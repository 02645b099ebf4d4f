"""`python -m orchestrator` is the same as `dinolab`."""

import sys
from typing import NoReturn

from orchestrator import interrupt


def main() -> NoReturn:
    """Run the command line; a signal ends it from the first import on."""
    interrupt.listen()
    try:
        from orchestrator.cli.entry import main as command

        command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    except SystemExit:
        if not interrupt.requested():
            raise
    # Python alone takes seconds to take such large libraries down.
    interrupt.leave()


if __name__ == "__main__":
    main()
