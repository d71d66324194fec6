"""The page about the control socket's API, made from its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEADER = """# Control API

[openapi.json](openapi.json) is the same as an OpenAPI 3.1 document, which a running daemon serves as well. The Python
client `hyper2kvmd.client` has a method for each operation, with the name that is given there. From a shell:

```text
curl --unix-socket /run/hyper2kvm/control.sock http://localhost/v1/status
```
"""
REFUSED = "45"
"""How the statuses of refusals begin."""
Document = Mapping[str, Any]


def markdown(document: Document) -> str:
    """The text of `docs/reference/api.md`."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    lines = [HEADER, document["info"]["description"], "", *_refusals(operations), "## Operations", ""]
    for operation in operations:
        lines += _operation(*operation)
    lines += ["## Types", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join(lines).rstrip("\n") + "\n"


def _refusals(operations: Sequence[tuple[str, str, Document]]) -> Iterator[str]:
    """The meaning of each status, once for all operations."""
    said = {
        status: answer["description"]
        for _, _, operation in operations
        for status, answer in operation["responses"].items()
        if status[0] in REFUSED
    }
    yield from ("| refusal | meaning |", "| --- | --- |")
    yield from (f"| {status} | {_lower(said[status])} |" for status in sorted(said))
    yield ""


def _operation(method: str, path: str, operation: Document) -> Iterator[str]:
    yield from (f"### {method} {path}", "", f"{operation['summary']}.", "")
    yield f"- Client: `{operation['operationId']}`"
    yield f"- Who: {operation['description']}"
    if body := _content(operation.get("requestBody", {})):
        yield f"- Body: {body}"
    statuses = operation["responses"]
    if answers := sorted({_content(answer) for status, answer in statuses.items() if status.startswith("2")} - {""}):
        yield f"- Answer: {', '.join(answers)}"
    yield f"- Refusals: {', '.join(status for status in statuses if status[0] in REFUSED)}"
    yield ""
    if parameters := operation.get("parameters"):
        yield from ("| parameter | type | meaning |", "| --- | --- | --- |")
        for one in parameters:
            yield _row(one["name"], one["schema"], one.get("description", ""))
        yield ""


def _schema(name: str, schema: Document) -> Iterator[str]:
    yield from (f"### {name}", "")
    if text := schema.get("description", ""):
        yield from (" ".join(text.split()), "")
    if "properties" not in schema:
        yield from (_type(schema), "")
        return
    yield from ("| key | type | meaning |", "| --- | --- | --- |")
    for key, value in schema["properties"].items():
        yield _row(key, value, value.get("description", ""))
    yield ""


def _row(name: str, schema: Document, meaning: str) -> str:
    default = f"Default: `{json.dumps(schema['default'])}`." if schema.get("default") is not None else ""
    text = " ".join(filter(None, [" ".join(meaning.split()), default]))
    return f"| `{name}` | {_type(schema)} | {text} |".replace("|  |", "| |")


def _content(holder: Document) -> str:
    types = [
        _type(one["schema"]) if media == "application/json" else f"`{media}`"
        for media, one in holder.get("content", {}).items()
    ]
    return " or ".join(types)


def _type(schema: Document) -> str:
    """In words, with links to the types of this page."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"enum": words}:
            return ", ".join(f"`{word}`" for word in words)
        case {"const": word}:
            return f"`{word}`"
        case {"anyOf": kinds} | {"oneOf": kinds}:
            return " or ".join(_type(kind) for kind in kinds)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": values} if isinstance(values, dict):
            return f"mapping to {_type(values)}"
        case {"type": "string", "format": form}:
            return str(form)
        case {"type": kind}:
            return str(kind)
        case _:
            return "any"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
