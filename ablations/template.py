"""A first file for an ablation of one's own, or a study."""

import re
from pathlib import Path

import yaml

from ablations.library import library
from ablations.spec import BASELINE
from ablations.study.schema import NOT_A_STUDYS
from ablations.study.where import packaged_studies
from trainers.errors import ConfigError, RootError

_ABLATION = '''"""Does one register change what [CLS] attends to?

Replace the question, and say here why the change below answers it.
"""

from ablations.spec import Ablation, Arm, Differs, Falls, Holds, Rises

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


_STUDY = """\
# Does one register change what [CLS] attends to? Replace the question, and what follows.
#
#     dinolab plan NAME.yaml    what would run, what differs between arms, how long it takes
#     dinolab run NAME.yaml     trains what is missing, then verdicts and a report
#
# `dinolab schema` prints the schema by which editors check and complete this file.
name: NAME                   # of the study and of its folder in the run root
recipe: digits_tiny          # dinolab list recipes
dataset: digits              # dinolab list datasets, or a folder of images: sub-folders are labels
seeds: 8                     # arms are paired by seed; fewer than 6 decide nothing
set:                         # knobs changed in every arm, the baseline too: dinolab list knobs
  steps: 400

arms:                        # beside `baseline`, which changes nothing more
  - registers_4              # from the catalogue: dinolab list ablations
  - one_register: {model.registers: 1}   # or a name of your own, and the knobs it changes

hypotheses:                  # stated before anything runs; a change: dinolab amend NAME.yaml
  one_register_changes_nothing:
    claim: "[CLS] attends as globally with one register as with none."
    metric: globality/contrast/gyration   # dinolab list metrics
    contrast: [one_register, baseline]    # an arm, and the arm it is compared with
    direction: holds         # or rises, falls, differs (in either direction)
    smallest_effect: 0.05    # what would matter, in the metric's own units
    control: registers_4     # expected to differ: without one a small change shows little
    rationale: "5 % of the gyration of uniform attention"
  four_registers_change_it:
    claim: "With four registers [CLS] attends more or less globally."
    metric: globality/contrast/gyration
    minus_start: true        # the change since the run's own step 0
    contrast: [registers_4, baseline]
    direction: differs
    smallest_effect: 0.05
    rationale: "5 % of the gyration of uniform attention"

gates:                       # what must hold in an arm for its hypotheses to count
  baseline_learns:
    arms: [baseline]
    metric: knn/cls_top1     # needs labels
    minus_start: true
    at_least: 0.1

# Where that is not enough (remove the #):
#
# claims:                    # what hypotheses decide together
#   registers:
#     text: "Registers do not change what [CLS] attends to."
#     source: where the claim was made
#     hypotheses: [one_register_changes_nothing]
#     rule: all              # or any, or the name of the hypothesis that decides
# factorial:                 # every combination is an arm; compare levels with `over: cells`
#   - [baseline, loss_on_patches]
#   - [baseline, cls_position_none]
# multiplicity: {over: claim, by: max-t}   # how p-values are adjusted
# looks: [6, 8]              # arms of what is decided with 6 seeds run no further
# spending: obf              # of the error over the looks; or pocock, or e-process without looks
# futility: equivalence      # stop too where no effect is shown
# resources: {workers: 1, cpus_per_worker: 1, device: auto}   # of one run; see `dinolab schema`
# scales:                    # sizes of the same study: --scale small
#   small: {seeds: 7, looks: [6, 7], set: {steps: 200}}
"""


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
    return _write(folder / f"{name}.py", _ABLATION.replace("NAME", name))


def write_study(name: str, folder: Path) -> Path:
    """Write FOLDER/NAME.yaml, a study that works and waits to be changed; returns its path.

    Raises ConfigError for a name that no study can have or that a packaged study has, and RootError
    when the file exists or cannot be written.
    """
    # YAML reads some words as something else: no, on, null.
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or yaml.safe_load(name) != name:
        raise ConfigError(
            f"new study {name}: a name is lower-case letters, digits, _ and -, from a letter on, "
            "and no word that YAML reads as a value"
        )
    known = packaged_studies()
    if name in NOT_A_STUDYS:
        raise ConfigError(f"new study {name}: a run root has such a folder; choose another")
    if name in known:
        raise ConfigError(f"new study {name}: {known[name]} has the name; choose another")
    return _write(folder / f"{name}.yaml", _STUDY.replace("NAME", name))


def _write(path: Path, text: str) -> Path:
    """A new file with this text. Raises RootError when it is there or cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RootError(f"{path} is there already: choose another name or --out") from None
    except OSError as error:
        raise RootError(f"{path} cannot be written: {error.strerror}") from None
    return path
