"""Finds, in the sources, every error code that the package can raise or report, and the effect that it has there.

A code is written as a literal where a failure is made, or handed to a parameter named `code` by whoever calls that
function. So each code can be found without running anything; what cannot be followed is an error of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

Name = tuple[str, str]
"""A module, and a function or class in it."""
ROOT: Name = ("hyper2kvmd.errors", "Explained")
HELPERS: Name = ("hyper2kvmd.helper.helper", "Refusal")
"""Its program imports nothing of ours, so it has a class of its own."""
CONCERN: Name = ("hyper2kvmd.model.concerns", "Concern")
"""No failure: its codes share the catalogue."""
MIGRATIONS = ".jobs.migrations."


class Effect(NamedTuple):
    """The kind and the exit status of a code; None if the code that catches the failure decides."""

    kind: str | None = None
    exit_code: int | None = None
    """Of the command that ends with this failure."""


@dataclass(frozen=True)
class Raised:
    code: str
    effect: Effect
    place: str


@dataclass
class Carrier:
    """What takes a code: a class with such a field, or a function with such a parameter."""

    position: int
    default: ast.expr | None = None
    effects: set[Effect] = field(default_factory=set)


@dataclass
class Module:
    name: str
    tree: ast.Module
    names: dict[str, Name] = field(default_factory=dict)
    """What each name at the top of the module stands for."""


class Untraceable(Exception):
    """A code that is neither a literal nor handed on."""


def raised_codes(package: Path) -> list[Raised]:
    """All but what the catalogue itself reads. Raises Untraceable for a code that is put together at run time."""
    paths = sorted(path for path in package.rglob("*.py") if path.parent.name != "catalogue")
    modules = [_read(package, path) for path in paths]
    carriers = {name: carrier for module in modules for name, carrier in _fields(module)}
    carriers |= {name: Carrier(0, effects={effect}) for name, effect in _failures(modules).items()}
    functions = {name: carrier for module in modules for name, carrier in _parameters(module)}
    carriers |= functions
    calls = [(module, *found) for module in modules for found in _calls(module, module.tree, None, None)]
    while True:  # a function that hands its code on gives it the effect of what it hands it to
        before = sum(len(carrier.effects) for carrier in carriers.values())
        for module, call, owner, inside in calls:
            target = _target(module, call, owner)
            if target in carriers and _is_handed_on(_code_of(call, carriers[target]), inside):
                assert inside is not None
                functions[module.name, inside.name].effects |= _effects(call, carriers[target])
        if before == sum(len(carrier.effects) for carrier in carriers.values()):
            break
    replies = (found for module in modules if module.name == HELPERS[0] for found in _replies(module))
    converted = (found for module in modules if MIGRATIONS in module.name for found in _converted(module))
    return [*_defaults(carriers), *_literals(calls, carriers), *replies, *converted]


def _read(package: Path, path: Path) -> Module:
    name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
    module = Module(name, ast.parse(path.read_text()))
    for node in ast.walk(module.tree):
        match node:
            case ast.ImportFrom(module=str(source), names=aliases):
                module.names |= {alias.asname or alias.name: (source, alias.name) for alias in aliases}
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                module.names[node.name] = (name, node.name)
    return module


def _fields(module: Module) -> Iterator[tuple[Name, Carrier]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            names = [ast.unparse(line.target) for line in fields]
            if "code" in names:
                position = names.index("code")
                effect = Effect("concern") if (module.name, node.name) == CONCERN else Effect()
                yield (module.name, node.name), Carrier(position, fields[position].value, {effect})


def _failures(modules: list[Module]) -> dict[Name, Effect]:
    """The classes of failures that take a code, with the effect that each has by itself; the helper's comes without.

    A class with an `__init__` of its own takes none: it gives one to its base.
    """
    classes = [(module, node) for module in modules for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    root = next(node for module, node in classes if (module.name, node.name) == ROOT)
    found = {ROOT: _own_effect(root), HELPERS: Effect()}
    for _ in classes:  # as deep as they can be
        for module, node in classes:
            bases = [module.names.get(ast.unparse(base), ("", "")) for base in node.bases]
            above = next((base for base in bases if base in found), None)
            if above is not None and not any(isinstance(line, ast.FunctionDef) for line in node.body):
                own = _own_effect(node)
                kind, exit_code = own.kind or found[above].kind, own.exit_code or found[above].exit_code
                found[module.name, node.name] = Effect(kind, exit_code)
    return found


def _own_effect(node: ast.ClassDef) -> Effect:
    own: dict[str, ast.expr] = {}
    for line in node.body:
        match line:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                own[name] = value
    kind = _kind(own["kind"]) if "kind" in own else None
    return Effect(kind, ast.literal_eval(own["exit_code"]) if "exit_code" in own else None)


def _parameters(module: Module) -> Iterator[tuple[Name, Carrier]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            names = [argument.arg for argument in node.args.args]
            if "code" in names:
                position, after = names.index("code"), len(names) - len(node.args.defaults)
                default = node.args.defaults[position - after] if position >= after else None
                yield (module.name, node.name), Carrier(position - (names[0] == "self"), default)


def _calls(
    module: Module, node: ast.AST, owner: ast.ClassDef | None, inside: ast.FunctionDef | None
) -> Iterator[tuple[ast.Call, ast.ClassDef | None, ast.FunctionDef | None]]:
    """Every call, with the class and the function that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, owner, inside
        within = child if isinstance(child, ast.ClassDef) else owner
        yield from _calls(module, child, within, child if isinstance(child, ast.FunctionDef) else inside)


def _target(module: Module, call: ast.Call, owner: ast.ClassDef | None) -> Name | None:
    match call.func:
        case ast.Name(id=name):
            return module.names.get(name)
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return module.name, name
        case ast.Attribute(value=ast.Name(id=where), attr=name) if where in module.names:
            return ".".join(module.names[where]), name
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))) if owner is not None and owner.bases:
            return module.names.get(ast.unparse(owner.bases[0]))
    return None


def _code_of(call: ast.Call, carrier: Carrier) -> ast.expr | None:
    named = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    return named or (call.args[carrier.position] if len(call.args) > carrier.position else None)


def _is_handed_on(code: ast.expr | None, inside: ast.FunctionDef | None) -> bool:
    if not (isinstance(code, ast.Name) and code.id == "code" and inside is not None):
        return False
    return "code" in [argument.arg for argument in inside.args.args] and inside.name != "__init__"


def _effects(call: ast.Call, carrier: Carrier) -> set[Effect]:
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "kind"), None)
    if given is None:
        return carrier.effects
    return {Effect(_kind(given), effect.exit_code) for effect in carrier.effects}


def _kind(value: ast.expr) -> str | None:
    match value:
        case ast.Constant(value=str(kind)):
            return kind
        case ast.Attribute(attr=kind) if kind.isupper():
            return kind.lower()
        case ast.Attribute():
            return None  # of a failure that there is already
    raise Untraceable(f"{ast.unparse(value)} is no literal kind")


def _defaults(carriers: dict[Name, Carrier]) -> Iterator[Raised]:
    for (module, name), carrier in carriers.items():
        match carrier.default:
            case ast.Constant(value=str(code)):
                yield from (Raised(code, effect, f"{module}.{name}") for effect in carrier.effects)


def _literals(
    calls: list[tuple[Module, ast.Call, ast.ClassDef | None, ast.FunctionDef | None]],
    carriers: dict[Name, Carrier],
) -> Iterator[Raised]:
    for module, call, owner, inside in calls:
        target = _target(module, call, owner)
        if target not in carriers:
            continue
        code, place = _code_of(call, carriers[target]), f"{module.name}:{call.lineno}"
        match code:
            case ast.Constant(value=str(text)):
                yield from (Raised(text, effect, place) for effect in _effects(call, carriers[target]))
            case ast.Attribute(attr="code") | ast.Subscript(slice=ast.Constant(value="error")) | None:
                pass  # of a failure or a reply that there is already, or by default
            case _ if not _is_handed_on(code, inside):
                raise Untraceable(f"{place}: {ast.unparse(code)} is no literal")


def _replies(module: Module) -> Iterator[Raised]:
    """Codes that the root helper writes into a reply without a failure of its own."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                match key, value:
                    case ast.Constant(value="error"), ast.Constant(value=str(code)):
                        yield Raised(code, Effect(), f"{module.name}:{node.lineno}")


def _converted(module: Module) -> Iterator[Raised]:
    """Codes that a step of the database gives to what an earlier version recorded without one."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                match key, value:
                    case ast.Constant(value="code"), ast.Constant(value=str(code)):
                        yield Raised(code, Effect("concern"), f"{module.name}:{node.lineno}")
