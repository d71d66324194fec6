"""What keeps notifications from running programs of others, and their keys and texts from others."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import GONE, NEVER, Cut
from tests.security.guards.guard import Guard, each

TESTS = "tests/integration/daemon/test_notifications.py::test_"

hook_dir = partial(Cut, "hyper2kvmd/daemon/notify/hook_dir.py")
webhook = partial(Cut, "hyper2kvmd/daemon/notify/webhook.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        f"{TESTS}nobody_elses_program_is_run_and_no_readable_key_is_used",
        hook_dir("programs", "call program_fault", "None"),
        webhook("_read_secret", "if OTHERS", NEVER),
    ),
    *each(
        f"{TESTS}a_webhook_that_fails_redirects_and_accepts_gets_one_notification",
        webhook("deliver", "keyword allow_redirects", GONE),
    ),
)
