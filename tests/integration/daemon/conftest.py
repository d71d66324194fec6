from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Folders and a configuration; the test starts the daemon."""
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()
