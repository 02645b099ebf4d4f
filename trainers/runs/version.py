"""Which code a trial executes: a short hash of each module, for what in it can change a result.

Modules are found from the syntax tree: all that the entry imports, and what those import, at the
top of a file or inside a function. A package that is searched at run time (`pkgutil`, `importlib`)
counts with every module in it. Not counted, since no number can depend on it: comments, formatting,
line numbers, docstrings, `if TYPE_CHECKING`, annotations outside classes (those of a decorated
function count, since its decorator may read them), the order of imports at the top of a file, what
a knob, a metric and a site of the loss mean, and what an error says.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

ENTRY = "trainers.runs.trial"
"""What runs a trial."""

MAKING_DATA = ("trainers.data.ingest", "trainers.data.sources")
"""Modules that are imported and do not count: what they make is in the digest of the data."""

ONLY_REFUSING = ("trainers.config.explain", "trainers.config.size", "trainers.errors")
"""The same: all they can do to a run is to refuse it, and to say why."""

_ONLY_TYPES = {"__future__", "collections.abc", "typing"}
_SEARCHING = {"importlib", "pkgutil"}
_OWN_PLACE = {"__file__", "__name__", "__package__", "__path__"}
_UNREAD = {"ctx", "kind", "type_comment", "type_ignores"}
_MEANINGS = {"DESCRIPTIONS", "meaning"}
_DIGITS = 12


@functools.cache
def code_versions() -> Mapping[str, str]:
    """Version of each module that a trial executes, by dotted name: 12 hexadecimal digits."""
    return MappingProxyType(versions_in(Path(__file__).parent.parent.parent))


def versions_in(home: Path) -> dict[str, str]:
    """The same of the sources below the folder `home`, in order of names."""
    found: dict[str, str] = {}
    waiting = {ENTRY}
    while waiting:
        name = waiting.pop()
        path = _file_of(home, name)
        if path is None or name in found or _does_not_count(name):
            continue
        found[name], tree, imports = _read(path.read_bytes())
        waiting |= _parents(name) | set(_imported(home, name, tree, imports))
    return dict(sorted(found.items()))


def versions_below(folders: Sequence[str]) -> dict[str, str]:
    """Version of each module below `folders` of this project, by dotted name, in order of names."""
    home = Path(__file__).parent.parent.parent
    return {
        ".".join(path.relative_to(home).with_suffix("").parts): _read(path.read_bytes())[0]
        for path in sorted(path for one in folders for path in (home / one).rglob("*.py"))
    }


def _read(source: bytes) -> tuple[str, ast.Module, list[ast.Import | ast.ImportFrom]]:
    """The version of a source, its syntax tree, and every import in it that may be executed."""
    tree, module = ast.parse(source), _Module()
    version = hashlib.sha256(module.written(tree).encode()).hexdigest()[:_DIGITS]
    return version, tree, module.imports


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Modules whose version is not the same in both, in order; those of one alone among them."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _file_of(home: Path, name: str) -> Path | None:
    """The source of a module or package; None when there is none below `home`."""
    parts = name.split(".")
    if parts[0] != ENTRY.split(".")[0] or not all(part.isidentifier() for part in parts):
        return None
    path = home.joinpath(*parts)
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _does_not_count(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in MAKING_DATA + ONLY_REFUSING)


def _parents(name: str) -> set[str]:
    """The packages that a module lies in, which are executed before it."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _imported(
    home: Path, name: str, tree: ast.Module, imports: Sequence[ast.Import | ast.ImportFrom]
) -> Iterator[str]:
    """Modules that module `name` may import, and names that are none."""
    named = []
    for node in imports:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            named += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            named += [alias.name for alias in node.names]
    yield from named
    modules = {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    if _SEARCHING.isdisjoint(one.split(".")[0] for one in (*named, *modules)):
        return
    for part in ast.walk(tree):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            named.append(part.value.strip("."))
        elif isinstance(part, ast.Name) and part.id in _OWN_PLACE:
            is_package = (home / Path(*name.split(".")) / "__init__.py").is_file()
            named.append(name if is_package else name.rpartition(".")[0])
    for one in named:
        if (_file_of(home, one) or Path()).name == "__init__.py":
            yield one
            folder = home.joinpath(*one.split("."))
            for path in folder.rglob("*.py"):
                inside = path.relative_to(home).with_suffix("").parts
                yield ".".join(part for part in inside if part != "__init__")


class _Module:
    """Writes a syntax tree as text that is the same for every version of Python."""

    def __init__(self) -> None:
        self.imports: list[ast.Import | ast.ImportFrom] = []

    def written(self, tree: ast.Module) -> str:
        """What counts of a module; `imports` then holds every import that may be executed."""
        statements = self._executed(tree.body)
        top = [one for one in statements if isinstance(one, ast.Import | ast.ImportFrom)]
        names = {
            f"{one.module if isinstance(one, ast.ImportFrom) else ''}:{alias.name}:{alias.asname}"
            for one in top
            for alias in one.names
            if (getattr(one, "module", None) or alias.name) not in _ONLY_TYPES
        }
        self.imports += top
        rest = [one for one in statements if not isinstance(one, ast.Import | ast.ImportFrom)]
        return "\n".join([*sorted(names), *(self._text(one) for one in rest)])

    def _executed(self, body: Sequence[ast.stmt], *, of_class: bool = False) -> list[ast.stmt]:
        """The statements of `body` that do something."""
        kept: list[ast.stmt] = []
        for one in body:
            if isinstance(one, ast.Pass) or (
                isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
            ):
                continue
            if isinstance(one, ast.Assign) and _says_what_is_meant(one):
                continue
            if isinstance(one, ast.If) and _last_name(one.test) == "TYPE_CHECKING":
                kept += self._executed(one.orelse, of_class=of_class)
            elif isinstance(one, ast.AnnAssign) and not of_class:
                if one.value is not None:
                    kept.append(ast.Assign(targets=[one.target], value=one.value))
            else:
                kept.append(one)
        return kept

    def _text(self, node: object, *, of_class: bool = False) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, list):
            if node and isinstance(node[0], ast.stmt):
                node = self._executed(node, of_class=of_class)
            return f"[{','.join([self._text(one) for one in node])}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _forget_annotations(node)
        elif isinstance(node, ast.Call) and _last_name(node.func) == "knob":
            node = _without_meaning(node)
        elif isinstance(node, ast.Call) and _last_name(node.func) == "brief":
            node = _without_text(node)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node = ast.Raise(exc=_without_text(node.exc), cause=node.cause)
        parts = []
        is_class = isinstance(node, ast.ClassDef)
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name not in _UNREAD:
                parts.append(f"{name}={self._text(value, of_class=is_class)}")
        return f"{type(node).__name__}({','.join(parts)})"


def _last_name(node: ast.expr) -> str:
    """`c` of `c` and of `a.b.c`; empty for anything else."""
    return getattr(node, "id", None) or getattr(node, "attr", None) or ""


def _says_what_is_meant(assignment: ast.Assign) -> bool:
    names = {_last_name(target) for target in assignment.targets}
    return names <= _MEANINGS and isinstance(assignment.value, ast.Constant | ast.Dict)


def _forget_annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if function.decorator_list:
        return
    function.returns = None
    given = function.args
    for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if one is not None:
            one.annotation = None


def _without_meaning(call: ast.Call) -> ast.Call:
    """The call of `knob` with its default and what is checked, without meaning, unit and source."""
    checked = [one for one in call.keywords if one.arg not in ("meaning", "unit", "source")]
    return ast.Call(func=call.func, args=call.args[:1], keywords=checked)


def _without_text(call: ast.Call) -> ast.Call:
    """The call of an error's class, or of `brief`, without the arguments that are texts."""
    kept = [
        one
        for one in call.args
        if not isinstance(one, ast.JoinedStr)
        and not (isinstance(one, ast.Constant) and isinstance(one.value, str))
    ]
    return ast.Call(func=call.func, args=kept, keywords=call.keywords)
