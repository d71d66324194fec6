"""The control socket does what its OpenAPI document says, for requests that follow it and for others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from hyper2kvmd.daemon.openapi import document
from hyper2kvmd.model.jobs import State
from tests.support.bridge import bridge
from tests.support.house import House

EXAMPLES = int(os.environ.get("H2K_API_EXAMPLES", "15"))
"""Requests for each operation and way to make them. `make fuzz` makes more."""

schema = schemathesis.openapi.from_dict(document()).exclude(operation_id="drain")
schema.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "404", "409", "422", "503"]
"""422: the grammar of a migration YAML is not in the document."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a daemon with a job in each state that a test can reach."""
    house = House(tmp_path_factory.mktemp("house"))
    house.configure()
    house.start()
    for name, words in (("succeeds", ("plan", "convert", "publish")), ("fails", ("fail permanent",))):
        text = house.migration(name, *words)
        assert house.ask("POST", "/v1/jobs", {"text": text, "name": name})[0] == 201
    house.reaches(1, State.SUCCEEDED)
    house.reaches(2, State.FAILED)
    house.ask("POST", "/v1/queue/pause")
    with bridge(house.socket) as url:
        yield url
    assert "Traceback" not in house.log
    house.close()


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(document())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_requests(case: schemathesis.Case[Any], address: str) -> None:
    case.call_and_validate(base_url=address)
