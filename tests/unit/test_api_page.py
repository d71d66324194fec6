"""The page of the API says what the OpenAPI document says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.daemon import openapi
from hyper2kvmd.manual import api_page

JOB = {"$ref": "#/components/schemas/Job"}
JSON = "application/json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


def document() -> dict[str, Any]:
    answer = {"description": "The answer", "content": {JSON: {"schema": {"type": "array", "items": JOB}}}}
    operation = {
        "operationId": "jobs",
        "summary": "Jobs",
        "description": "Operators.",
        "parameters": [
            {"name": "limit", "schema": {"type": "integer", "default": 10}, "description": "How many."},
            {"name": "vm", "schema": {"type": "string"}},
        ],
        "requestBody": {"content": {JSON: {"schema": JOB}}},
        "responses": {"200": answer, "404": {"description": "The job is unknown"}},
    }
    schemas = {
        "Job": {"type": "object", "description": "One\njob.", "properties": {"id": {"type": "integer"}}},
        "State": {"type": "string", "enum": ["queued", "held"]},
    }
    info = {"description": "HTTP on a socket."}
    return {"info": info, "paths": {"/v1/jobs": {"get": operation}}, "components": {"schemas": schemas}}


def test_the_reference_is_generated() -> None:
    assert PAGE.read_text() == api_page.markdown(openapi.document()), "run: make reference"


def test_a_status_has_one_meaning() -> None:
    meanings = {
        (status, answer["description"])
        for methods in openapi.document()["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if status[0] in api_page.REFUSED
    }
    assert len(meanings) == len(dict(meanings)) > 3


def test_an_operation_and_its_types() -> None:
    page = api_page.markdown(document())
    assert (
        "### GET /v1/jobs\n\nJobs.\n\n"
        "- Client: `jobs`\n- Who: Operators.\n- Body: [Job](#job)\n- Answer: list of [Job](#job)\n"
        "- Refusals: 404\n\n"
        "| parameter | type | meaning |\n| --- | --- | --- |\n"
        "| `limit` | integer | How many. Default: `10`. |\n| `vm` | string | |\n"
    ) in page
    assert "| refusal | meaning |\n| --- | --- |\n| 404 | the job is unknown |\n\n## Operations\n" in page
    assert "### Job\n\nOne job.\n\n| key | type | meaning |\n| --- | --- | --- |\n| `id` | integer | |\n" in page
    assert page.endswith("### State\n\n`queued`, `held`\n")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping to string"),
        ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, "date-time or null"),
        ({"type": "array", "items": {"const": "x"}}, "list of `x`"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema: dict[str, Any], words: str) -> None:
    changed = document()
    changed["components"]["schemas"] = {"One": schema}
    assert api_page.markdown(changed).endswith(f"### One\n\n{words}\n")
