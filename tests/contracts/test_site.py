"""Pages: a site without dead links, and the files at the root that lead to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent


def test_the_site_is_built_without_a_dead_link(tmp_path):
    # Not quietly: then warnings are not counted, and nothing is strict.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def links(page: Path) -> list[str]:
    """Where its links and pictures lead, but for those to other machines."""
    inline = [token for token in MarkdownIt().parse(page.read_text()) if token.type == "inline"]
    parts = [part for token in inline for part in token.children or []]
    found = [str(part.attrs.get("href") or part.attrs.get("src") or "") for part in parts]
    return [link for link in found if link and "://" not in link]


def headings(page: Path) -> set[str]:
    """What a link can name in it."""
    return {slugify(line, "-") for line in re.findall(r"(?m)^#+ (.*)", page.read_text())}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_page_at_the_root_leads_somewhere(page):
    found = links(ROOT / page)
    assert found
    for link in found:
        file, _, heading = link.partition("#")
        target = ROOT / (file or page)
        assert target.exists(), link
        assert not heading or heading in headings(target), link
