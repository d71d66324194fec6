"""Fixtures of the host, for the tests that run inside the machine."""

from __future__ import annotations

from tests.support.host import helper_socket as helper_socket
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
