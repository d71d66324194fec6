"""The OpenAPI document is generated and has every operation; the client has a method for each."""

from __future__ import annotations

import json
from pathlib import Path

from hyper2kvmd.client import Client
from hyper2kvmd.daemon.control import Control
from hyper2kvmd.daemon.openapi import document
from hyper2kvmd.daemon.operations import OPERATIONS, Role

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"


def test_the_reference_is_generated() -> None:
    assert json.loads(REFERENCE.read_text()) == document(), "run: make reference"


def test_each_operation_has_a_method_of_the_client() -> None:
    assert [one.name for one in OPERATIONS if not callable(getattr(Client, one.name, None))] == []
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert public == {one.name for one in OPERATIONS}


def test_each_operation_has_a_route() -> None:
    routes = vars(Control)["_routes"].__code__.co_names
    names = {name for name in routes if name.isupper()}
    assert len(names) == len(OPERATIONS)


def test_who_may_change_the_queue() -> None:
    assert {one.name for one in OPERATIONS if one.who is Role.OPERATOR} == {
        *("pause", "resume", "drain"),
        "test_notifications",
    }


def test_fields_are_described() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["RunningJob"]["properties"]["bytes_per_second"]["description"] == "In the last 10 s."
    (after,) = [one for one in document()["paths"]["/v1/jobs/{id}/events"]["get"]["parameters"] if one["in"] == "query"]
    assert after["description"] == "Only events with a higher number."
