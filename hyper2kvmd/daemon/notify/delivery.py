"""One try to deliver one notification, by the kind of its destination; and what prevents every delivery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from hyper2kvmd.daemon.notify import hook_dir, mail, webhook
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.person import Person
from hyper2kvmd.model.notifications import Destination, Kind, Notification


def _mail(destination: Destination, notification: Notification) -> Awaitable[None]:
    return in_a_thread("mail", lambda: mail.deliver(destination, notification))


def _hook_dir(destination: Destination, notification: Notification) -> Awaitable[None]:
    return in_a_thread("hook_dir", lambda: hook_dir.deliver(destination, notification))


DELIVER: Mapping[Kind, Callable[[Destination, Notification], Awaitable[None]]] = {
    "webhook": webhook.deliver,
    "mail": _mail,
    "hook_dir": _hook_dir,
}
CHECK: Mapping[Kind, Callable[[Destination, Person], object]] = {
    "webhook": webhook.check,
    "mail": mail.check,
    "hook_dir": hook_dir.programs,
}


async def deliver(destination: Destination, notification: Notification) -> None:
    """Raises Failure: `notify-blocked`, `notify-unreachable`, `notify-refused`, `notify-secret`, `notify-program`."""
    await DELIVER[destination.kinds[0]](destination, notification)


def faults(destination: Destination, user: Person) -> Iterator[Failure]:
    """What the host lacks for deliveries by `user`. Nothing is sent."""
    try:
        CHECK[destination.kinds[0]](destination, user)
    except Failure as failure:
        yield failure
