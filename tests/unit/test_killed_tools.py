"""Tools and helpers that something outside kills: temporary errors, and not the fault of a guest or an operator."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from hyper2kvmd.errors import Failure, Kind
from hyper2kvmd.guest.mounts.channel import Command, Silence
from hyper2kvmd.helper import helper


def ask(script: str) -> None:
    """As a request that gets no answer."""
    with Command(("sh", "-c", script)).opened() as channel:
        channel.settimeout(60)
        assert channel.recv(1) == b""
        raise Silence


def fault_of(script: str) -> Failure:
    with pytest.raises(Failure) as caught:
        ask(script)
    return caught.value


@pytest.mark.parametrize("script", ["kill -9 $$", "exit 137", "kill -TERM $$"], ids=["killed", "as sudo says", "ended"])
def test_a_killed_helper_is_tried_again(script: str) -> None:
    fault = fault_of(script)
    assert (fault.code, fault.kind) == ("helper-died", Kind.RETRY)


def test_a_helper_that_refuses_is_no_killed_one() -> None:
    fault = fault_of("echo a password is required; exit 1")
    assert (fault.code, fault.kind) == ("helper-unreachable", Kind.OPERATOR)
    assert "sudoers" in fault.hint


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_process_of_the_helper_is_no_missing_user_namespace(
    monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    def unshare(_flags: int) -> int:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return -1

    monkeypatch.setattr(helper, "libc", SimpleNamespace(unshare=unshare, prctl=helper.libc.prctl))
    with pytest.raises(helper.Refusal) as refusal:
        helper.id_map(helper.Caller(uid=1000, gid=1000))
    assert refusal.value.code == ("killed" if killed else "unsupported")
