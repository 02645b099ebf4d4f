"""YAML as people write it, and as much of it as a file of settings needs."""

import re
from typing import Any

import yaml

DEEPEST = 30
"""Lists and mappings in one another."""

MOST_VALUES = 100_000
"""Values of a file, those of an alias counted each time that it is named."""

_LONGEST_NUMBER = 40


class ValueLoader(yaml.SafeLoader):
    """Safe YAML that reads values as they are meant.

    1e-3, 1e5, .5 and 1_000 are numbers, and 0100 is a hundred. Only true and false are booleans;
    yes, no, on, off, 1:40 and dates are text, which a knob that is on or off understands too.
    Raises YAMLError for what nests more than DEEPEST deep.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.constructor.ConstructorError(
                None, None, f"nests more than {DEEPEST} deep, at about line {self.line + 1}", None
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """`<<` is a key as any other."""


ValueLoader.yaml_implicit_resolvers = {}
ValueLoader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "str", "seq", "map")
}


def _number(loader: ValueLoader, node: yaml.ScalarNode) -> int | float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    if len(text) > _LONGEST_NUMBER:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} characters is too long", node.start_mark
        )
    if "x" in text:
        return int(text, 16)
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    # 1e5 steps are a whole number of them.
    is_whole = "." not in text and number.is_integer() and abs(number) < 2**53
    return int(number) if is_whole else number


_DIGITS = list("-+.0123456789")
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(\d[\d_]*|0x[\da-fA-F]+)", _DIGITS),
    (
        "float",
        r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _DIGITS,
    ),
):
    ValueLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first
    )
for _name in ("int", "float"):
    ValueLoader.add_constructor(f"tag:yaml.org,2002:{_name}", _number)


def read_yaml(text: str, loader: type[ValueLoader] = ValueLoader) -> Any:
    """The value that `text` is.

    Raises ValueError, one line, for what is no YAML, nests too deep or holds too many values.
    """
    try:
        value = yaml.load(text, loader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (yaml.YAMLError, KeyError, ValueError) as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None
    waiting, values = [value], 0
    while waiting and values <= MOST_VALUES:
        one = waiting.pop()
        values += 1
        if isinstance(one, (list, dict)):
            waiting += one.values() if isinstance(one, dict) else one
    if values > MOST_VALUES:
        raise ValueError(
            f"holds more than {MOST_VALUES:,} values, those of an alias counted each time; "
            "write fewer"
        )
    return value
