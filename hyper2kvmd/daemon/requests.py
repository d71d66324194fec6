"""Requests of the control socket as typed values, and answers as JSON."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any, Generic

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hyper2kvmd.daemon.callers import Caller
from hyper2kvmd.daemon.http import web
from hyper2kvmd.daemon.operations import Body, Operation, Query
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import NoBody, RefusalBody
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem

MAX_SHOWN = 80
"""Characters of a key in a message."""
HINT = "Send what GET /v1/openapi.json describes, or use h2kvmctl of the same version"


class RequestInvalid(InvalidInput):
    """A request with errors, each of which is a problem of its own."""

    def __init__(self, *facts: str, hint: str = HINT) -> None:
        super().__init__("request-invalid", "; ".join(facts), hint=hint)
        self.problems = tuple(Problem(code=self.code, message=fact, hint=self.hint, kind="permanent") for fact in facts)


class Call(Generic[Query, Body]):
    """One request that its caller may make."""

    def __init__(self, request: web.Request, caller: Caller, query: Query, body: Body) -> None:
        self.caller, self.query, self.body = caller, query, body
        self._request = request

    @property
    def number(self) -> int:
        """That of the job or batch in the path."""
        return int(self._request.match_info["id"])

    async def stream(self, content_type: str) -> web.StreamResponse:
        """A text whose parts the handler writes. It must not fail from here on: the status is sent."""
        response = web.StreamResponse()
        response.content_type, response.charset = content_type, "utf-8"
        await response.prepare(self._request)
        return response


async def read_call(operation: Operation[Query, Body, Any], request: web.Request, caller: Caller) -> Call[Query, Body]:
    """Raises RequestInvalid with all errors of query and body."""
    facts: list[str] = []
    query = body = None
    try:
        query = operation.query.model_validate(_words(operation.query, request, facts))
    except ValidationError as error:
        facts += _facts("query", error)
    try:
        body = _body(operation.body, await request.read())
    except ValidationError as error:
        facts += _facts("body", error)
    if facts or query is None or body is None:
        raise RequestInvalid(*facts)
    return Call(request, caller, query, body)


def _words(kind: type[Frozen], request: web.Request, facts: list[str]) -> dict[str, object]:
    """The query as a dictionary: keys of tuples with all their values, other ones once."""
    words: dict[str, object] = {}
    for key in dict.fromkeys(request.query):
        values = request.query.getall(key)
        field = kind.model_fields.get(key)
        if field is not None and typing.get_origin(field.annotation) is tuple:
            words[key] = values
            continue
        words[key] = values[0]
        if len(values) > 1:
            facts.append(f"the query has {_shown(key)} {len(values)} times")
    return words


def _body(kind: type[Body], data: bytes) -> Body:
    if kind is NoBody and not data:
        return kind()
    return kind.model_validate_json(data, strict=True)


def _facts(where: str, error: ValidationError) -> Iterator[str]:
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        yield _fact(where, one)


def _fact(where: str, error: ErrorDetails) -> str:
    key = _shown(".".join(map(str, error["loc"])))
    if error["type"] == "extra_forbidden":
        return f"the {where} has the unknown key {key}"
    return f"the {where} is invalid: {key}: {error['msg']}" if key else f"the {where} is invalid: {error['msg']}"


def _shown(key: str) -> str:
    return key[:MAX_SHOWN].encode(errors="replace").decode()


# ---------------------------------------------------------------- answers


def answer(body: Frozen, *, status: int = 200) -> web.Response:
    return web.Response(text=body.model_dump_json(), status=status, content_type="application/json")


async def list_answer(items: Sequence[Frozen], *, total: int | None = None, status: int = 200) -> web.Response:
    """Dumped in a thread, item by item: one dump of them all would block the event loop even from a thread."""

    def dump() -> bytes:
        return b"[" + b",".join(item.model_dump_json().encode() for item in items) + b"]"

    headers = None if total is None else {"Total-Count": str(total)}
    body = await in_a_thread("answer", dump)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def refusal(problems: tuple[Problem, ...], status: int) -> web.Response:
    return answer(RefusalBody(problems=problems), status=status)
