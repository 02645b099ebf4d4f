"""A page of HTML from a template; text is escaped, and a name without a value is an error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def rendered(template: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The page that `template` gives with `values`, which it may pass through `filters`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template.name).render(**values)
