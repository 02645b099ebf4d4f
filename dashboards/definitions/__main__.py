"""`python -m dashboards.definitions docs`: the definitions in statistics.md, and their pictures."""

import re
import sys
from pathlib import Path

from dashboards.definitions.picture import described, picture
from dashboards.definitions.text import DEFINITIONS

PAGE = "statistics.md"
PICTURES = "labels"


def write(folder: Path) -> None:
    """Writes the pictures into `folder`/labels, and text and picture under each heading of the
    page in `folder` that is a label, a tag or a word.
    """
    page = folder / PAGE
    (folder / PICTURES).mkdir(exist_ok=True)
    text = page.read_text(encoding="utf-8")
    for name, definition in DEFINITIONS.items():
        file = f"{PICTURES}/{name}.svg"
        (folder / file).write_text(picture(name, alone=True), encoding="utf-8")
        section = f"{definition}\n\n![{described(name)}]({file})\n\n"
        heading = f"### {name}\n\n"
        pattern = re.compile(rf"^({heading}).*?(?=^#)", re.MULTILINE | re.DOTALL)
        text, found = pattern.subn(rf"\g<1>{section}", text)
        if found != 1:
            raise ValueError(f"{page} has {found} headings `### {name}`, it needs one")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
