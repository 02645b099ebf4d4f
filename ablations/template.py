"""A first file for an ablation of one's own."""

import re
from pathlib import Path

from ablations.library import library
from ablations.spec import BASELINE
from trainers.errors import ConfigError, RootError

_TEMPLATE = '''"""Does one register change what [CLS] attends to?

Replace the question, and say here why the change below answers it.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="A register does not change how globally [CLS] attends.",
    source="where the claim was made",
    arms={
        "NAME": Arm(
            change={"model.registers": 1},  # dinolab list knobs
            # Rises, Falls, Differs or Holds; dinolab list metrics; the smallest effect that matters
            expect=Holds("globality/contrast/gyration", by=0.05),
            confounds=("one more token",),  # what differs beside what the change is about
        )
    },
)
'''


def write_ablation(name: str, folder: Path) -> Path:
    """Write FOLDER/NAME.py, an ablation that works and waits to be changed; returns its path.

    Raises ConfigError for a name that no file can have or that is there already, and RootError when
    the file exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == BASELINE:
        raise ConfigError(
            f"new ablation {name}: a name is lower-case letters, digits and _, from a letter on, "
            f"and not {BASELINE}"
        )
    known = library()
    if name in known:
        raise ConfigError(f"new ablation {name}: {known[name].where} has one; choose another name")
    path = folder / f"{name}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEMPLATE.replace("NAME", name))
    except FileExistsError:
        raise RootError(f"{path} is there already: choose another name or --out") from None
    except OSError as error:
        raise RootError(f"{path} cannot be written: {error.strerror}") from None
    return path
