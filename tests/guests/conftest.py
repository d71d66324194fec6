"""What guest tests need of the host is what the integration tests need."""

from __future__ import annotations

from tests.integration.host import installed_helper as installed_helper
from tests.integration.host import service_folder as service_folder
from tests.integration.host import service_user as service_user
