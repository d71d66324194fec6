"""Fixtures of the host and of the whole service, for attacks on both."""

from __future__ import annotations

from tests.integration.daemon.conftest import house as house
from tests.integration.host import installed_helper as installed_helper
from tests.integration.host import service_folder as service_folder
from tests.integration.host import service_user as service_user
