"""Guest tests need of the host what the integration tests need, and a folder that is not kept."""

from __future__ import annotations

import pytest

from tests.guests.altered import guest_folder as guest_folder
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
from tests.support.own_host import own_host as own_host

pytest.register_assert_rewrite("tests.guests.migration")
