"""Fixtures of the host, for every integration test."""

from __future__ import annotations

from tests.guests.altered import guest_folder as guest_folder
from tests.support.host import helper_socket as helper_socket
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
from tests.support.own_host import own_host as own_host
from tests.support.postgres import postgres as postgres
from tests.support.windows_beds import virtio_win as virtio_win
from tests.support.windows_beds import windows_beds as windows_beds
