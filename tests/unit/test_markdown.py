"""Texts of guests and of other users stay texts in a Markdown page."""

from __future__ import annotations

import pytest

from hyper2kvmd.markdown import code, fenced, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://evil/", "see http\\://evil/"),
        ("HTTPS://evil/", "HTTPS\\://evil/"),
        ("www.evil.example", "www\\.evil.example"),
        ("WWW.evil.example", "WWW\\.evil.example"),
        ("mailto:a@evil.example", "mailto:a@<!-- -->evil.example"),
        ("~~no~~ _yes_ disk_1", "\\~\\~no\\~\\~ \\_yes\\_ disk_1"),
    ],
)
def test_nothing_is_a_link_or_emphasis(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_other_texts_stay_as_they_are() -> None:
    assert plain("at 10:30, 3 @ 5, C:/a_b") == "at 10:30, 3 @ 5, C:/a_b"


def test_nothing_controls_a_terminal_or_turns_the_text_around() -> None:
    evil = "a\x1b[31m\u202eb\u2066\x00"
    clean = "a\ufffd[31m\ufffdb\ufffd\ufffd"
    assert plain(evil) == clean.replace("[", "\\[")
    assert code(evil) == f"`{clean}`"
    assert fenced(f"+\t{evil}\n") == ["```", f"+\t{clean}", "```"]
