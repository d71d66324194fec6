"""What a job has finished: never a stage without those before it, and each product of its stage's type."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.results import FIELDS, PRODUCTS, Finished, Product
from hyper2kvmd.progress import StageFinished, read_event
from tests.support.benches import NOTHING_PLANNED

IMAGE = Image(disks=(), format="raw", layout=Layout(tables=()))


def test_each_stage_has_its_product() -> None:
    assert list(PRODUCTS) == list(Stage)
    assert list(FIELDS) == list(PRODUCTS.values())
    assert list(FIELDS.values()) == list(Finished.model_fields)


def test_products_come_in_any_order_but_without_a_gap() -> None:
    assert Finished.of([IMAGE, NOTHING_PLANNED]) == Finished(plan=NOTHING_PLANNED, image=IMAGE)
    gaps: tuple[list[Product], ...] = ([IMAGE], [NOTHING_PLANNED, Guest()])
    for products in gaps:
        with pytest.raises(ValidationError, match="before the stages that lead to it"):
            Finished.of(products)


def test_an_event_carries_the_product_of_its_own_stage() -> None:
    event = StageFinished(stage=Stage.REPAIR, seconds=1.0, product=Guest())
    assert read_event(event.model_dump_json()) == event
    with pytest.raises(ValidationError):
        StageFinished(stage=Stage.CONVERT, seconds=1.0, product=Guest())
