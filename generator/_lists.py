"""The two lists that name every method: the room's exports, and the page of the Python API."""

import ast
import re
from collections.abc import Sequence

from generator._facts import Facts

_MARKED = re.compile(r"(<!-- methods -->\n).*?(<!-- end -->)", re.DOTALL)


def api_page(text: str, facts: Sequence[Facts]) -> str:
    """`docs/api.md` with every method between its markers."""
    names = sorted((fact.label for fact in facts), key=str.lower)
    block = "\n".join(f"::: motet.balance.{name}" for name in names)
    return _MARKED.sub(lambda found: f"{found[1]}\n{block}\n\n{found[2]}", text)


def exports(text: str, facts: Sequence[Facts]) -> str:
    """The room's `__init__.py` with an import and an export of each method that it lacks."""
    tree = ast.parse(text)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    found = {node.module or "": {alias.name for alias in node.names} for node in imports}
    missing = [fact for fact in facts if fact.label not in found.get(fact.kind.__module__, set())]
    if not missing:
        return text
    for fact in missing:
        found.setdefault(fact.kind.__module__, set()).add(fact.label)
    lines = [_import(module, names) for module, names in sorted(found.items())]
    everything = sorted(_exported(tree) | {fact.label for fact in missing}, key=_rank)
    listed = "".join(f'    "{name}",\n' for name in everything)
    return f'"""{ast.get_docstring(tree)}"""\n\n' + "".join(lines) + f"\n__all__ = [\n{listed}]\n"


def _exported(tree: ast.Module) -> set[str]:
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)]
    return {str(item.value) for found in lists for item in found.elts if isinstance(item, ast.Constant)}


def _import(module: str, names: set[str]) -> str:
    ordered = sorted(names, key=_rank)
    line = f"from {module} import {', '.join(ordered)}\n"
    if len(line) <= 121:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")\n"


def _rank(name: str) -> tuple[int, str]:
    """As the linter sorts: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
