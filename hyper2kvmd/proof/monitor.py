"""The QMP monitor of a running QEMU that its guest may have compromised: all waits and queues are limited.

Source: QEMU's docs/interop/qmp-spec.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)

from hyper2kvmd.errors import Kind, MigrationFailed

ANSWER_SECONDS = 60.0
"""Time for an answer from QEMU, which takes milliseconds on a healthy host."""

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
"""The library logs every message that it cannot route, and the emulator determines their number."""


class Monitor:
    """Raises MigrationFailed (`emulator-stalled`, `emulator-failed`), also when it is opened."""

    def __init__(self, connection: socket.socket) -> None:
        self.ending: str | None = None
        """Why the guest ended, in QEMU's words: `guest-shutdown`, `guest-reset`..."""
        self._runner = asyncio.Runner()
        self._client = QMPClient("guest")
        # an event that the filter declines is not queued
        self._client.register_listener(EventListener(names=("SHUTDOWN",), event_filter=self._note))
        try:
            self._wait_for(self._client.connect(connection))
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def ask(self, command: str) -> Any:
        """The answer to `command`; None once the machine has stopped."""
        return self._wait_for(self._client.execute(command))

    def follow(self) -> None:
        """Note events until the machine has stopped."""
        self._wait_for(self._until_the_end())

    async def _until_the_end(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        raise StateError("the machine has stopped", self._client.runstate, Runstate.RUNNING)

    def _note(self, event: Message) -> bool:
        data = event.get("data")
        self.ending = str(data.get("reason")) if isinstance(data, dict) else None
        return False

    def _wait_for(self, answer: Awaitable[Any]) -> Any:
        try:
            return self._runner.run(self._answered(answer))
        except TimeoutError:
            raise MigrationFailed(
                "emulator-stalled",
                f"QEMU has not responded for {ANSWER_SECONDS:.0f} s",
                hint="Check memory and storage of this host, then retry",
                kind=Kind.RETRY,
            ) from None
        except (EOFError, OSError):
            return None
        except (QMPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # the library also raises exceptions other than its own
            raise no_qmp() from None

    async def _answered(self, answer: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except ConnectError as error:
            raise error.exc from None
        except (ExecInterruptedError, StateError):
            await self._client.disconnect()  # raises what ended the connection
            return None


def no_qmp() -> MigrationFailed:
    return MigrationFailed(
        "emulator-failed",
        "QEMU's monitor sent a message that is not valid QMP",
        hint="Treat the guest as hostile: it may have compromised QEMU, which runs confined",
    )
