"""A page of HTML from a template; text is escaped, and a name without a value is an error."""

import base64
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

_HOME = Path(__file__).parent


def rendered(template: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The page that `template` gives with `values`, which it may pass through `filters`.

    It may import others by their paths in dashboards/.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HOME),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template.relative_to(_HOME).as_posix()).render(**values)


def packed(text: str) -> str:
    """Text as base64 of its zlib stream: a page of megabytes of script is a third as large so."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
