"""The OpenAPI 3.1 document of the control socket, made from the operations and the types that they exchange."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from hyper2kvmd.daemon.operations import OPERATIONS, AnyOperation, Role, Text
from hyper2kvmd.daemon.wire import NoBody, RefusalBody
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import MAX_ID

Schema: TypeAlias = dict[str, Any]
REFUSALS = {
    400: "The request is invalid",
    403: "The caller may not do this",
    404: "It does not exist, or the caller may not know of it",
    409: "The state of the job does not allow it",
    422: "The migration YAML has errors",
    503: "Try again later",
}
ALWAYS = (400, 403, 503)
ROLES = {Role.SUBMITTER: "Operators, and submitters for their own jobs", Role.OPERATOR: "Operators"}
ABOUT = """HTTP on a Unix socket, by default `/run/hyper2kvm/control.sock`. The kernel identifies the caller.

Operators are root, the user of the daemon and the members of its group: they may do everything. Submitters are the
other users who may drop files into the spool: they may use operations on jobs, and the jobs of others do not exist for
them.

Every refusal is a JSON object with all problems. `h2kvmctl explain CODE` explains the code of each."""
JSON = "application/json"
REFERENCE = "#/components/schemas/{model}"
TEXTS: Mapping[str, Schema] = {JSON: {"type": "object"}}


@cache
def document() -> Schema:
    """The document as a dictionary for JSON."""
    schemas = _schemas()
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    for operation in OPERATIONS:  # queries are written out as parameters
        schemas.pop(operation.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hyper2kvmd", "version": "1", "description": ABOUT},
        "servers": [{"url": "http://localhost", "description": "The control socket; the host name has no meaning"}],
        "paths": paths,
        "components": {"schemas": {name: schemas[name] for name in sorted(schemas)}},
    }


def _schemas() -> Schema:
    """The schemas of all types that are exchanged, by their names."""
    asked = {kind for operation in OPERATIONS for kind in (operation.query, operation.body) if kind is not NoBody}
    answered: set[Any] = {RefusalBody, *(operation.answer for operation in OPERATIONS if operation.answer is not Text)}
    wanted: list[tuple[object, JsonSchemaMode, TypeAdapter[Any]]] = [
        *((kind, "validation", TypeAdapter(kind)) for kind in asked),
        *((kind, "serialization", TypeAdapter(kind)) for kind in answered),
    ]
    _, together = TypeAdapter.json_schemas(wanted, ref_template=REFERENCE)
    schemas: Schema = together["$defs"]
    for kind in _kinds(Frozen):
        if kind.__name__ in schemas:
            _describe(schemas[kind.__name__], kind)
    return schemas


def _kinds(kind: type[Frozen]) -> Iterator[type[Frozen]]:
    for one in kind.__subclasses__():
        yield one
        yield from _kinds(one)


def _describe(schema: Schema, kind: type[Frozen]) -> None:
    """Add the docstrings of the fields."""
    for owner in reversed(kind.__mro__):
        if issubclass(owner, Frozen):
            for name, text in _field_docstrings(owner):
                if name in schema.get("properties", {}):
                    schema["properties"][name].setdefault("description", text)


def _field_docstrings(kind: type[Frozen]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(inspect.getsource(kind)).body
    lines = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, text in itertools.pairwise(lines):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                yield name, " ".join(docstring.split())


# ---------------------------------------------------------------- operations


def _operation(operation: AnyOperation, schemas: Schema) -> Schema:
    made: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{ROLES[operation.who]}.",
        "parameters": [*_parameters(operation, schemas)],
        "responses": {**dict(_answers(operation)), **dict(_refusals(operation))},
    }
    if operation.body is not NoBody:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(operation.body)}}}
    return made


def _parameters(operation: AnyOperation, schemas: Schema) -> Iterator[Schema]:
    if "{id}" in operation.path:
        number = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        yield {"name": "id", "in": "path", "required": True, "schema": number}
    for name, schema in schemas[operation.query.__name__]["properties"].items():
        kept = {key: value for key, value in schema.items() if key not in ("description", "title", "anyOf")}
        for choice in schema.get("anyOf", ()):  # None means that the key is not given
            if choice.get("type") != "null":
                kept = choice
        made = {"name": name, "in": "query", "required": False, "schema": kept}
        yield made | {key: schema[key] for key in ("description",) if key in schema}


def _answers(operation: AnyOperation) -> Iterator[tuple[str, Schema]]:
    answer: Schema = {"description": "The answer", "content": {media: {} for media in operation.media}}
    if operation.answer is not Text:
        answer["content"][JSON]["schema"] = _schema_of(operation.answer)
    else:
        answer["content"] = {media: {"schema": TEXTS.get(media, {"type": "string"})} for media in operation.media}
    if operation.paged:
        number = {"type": "integer", "minimum": 0}
        answer["headers"] = {"Total-Count": {"description": "The number of all items", "schema": number}}
    yield "200", answer
    if operation.created:
        yield "201", answer | {"description": "The answer, for new jobs"}


def _refusals(operation: AnyOperation) -> Iterator[tuple[str, Schema]]:
    content = {JSON: {"schema": _reference(RefusalBody)}}
    for status in sorted({*ALWAYS, *operation.refusals}):
        yield str(status), {"description": REFUSALS[status], "content": content}
    yield "default", {"description": "Another failure", "content": content}


def _schema_of(kind: Any) -> Schema:
    """That of a type of the table: a model, or a tuple of one."""
    if typing.get_origin(kind) is tuple:
        return {"type": "array", "items": _reference(typing.get_args(kind)[0])}
    return _reference(kind) if inspect.isclass(kind) and issubclass(kind, Frozen) else {"type": "object"}


def _reference(kind: type[Frozen]) -> Schema:
    return {"$ref": REFERENCE.format(model=kind.__name__)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
