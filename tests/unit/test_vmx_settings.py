"""The form of VMware's settings, in a .vmx and in a .vmsd."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd.machines.vmx.settings import FALSE, TRUE, Settings, parse_settings

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"|\r\n'), max_size=30)
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_.:-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('key = "value"', "value"),
        ('KEY="value"', "value"),
        ('\tkEy\t=\t"value"\t', "value"),
        ('key = "value" # a remark', "value"),
        ("key = value", "value"),
        ("key = value # a remark", "value"),
        ('key = "a # b"', "a # b"),
        ('key = ""', ""),
        ('key = " x "', " x "),
        ('key = "a|22b|22"', 'a"b"'),
        ('key = "a|0Ab"', "a\nb"),
        ('key = "|7c22"', "|22"),
        ('key = "|7C|7c"', "||"),
        ('key = "|zz|2"', "|zz|2"),
        ('key = "B\u00fcro"', "B\u00fcro"),
        ('key = "a\u2028b"', "a\u2028b"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", '\n\nother = "x"\n'])
def test_a_line(line: str, value: str, end: str) -> None:
    assert parse_settings((line + end).encode()).values["key"] == value


@pytest.mark.parametrize(
    "line", ["", "key", "key =", "key = #", '= "x"', '# key = "x"', "key : x", 'key = "x', "a b = c"]
)
def test_no_setting(line: str) -> None:
    assert parse_settings(line.encode()) == Settings()


@pytest.mark.parametrize("codec", ["utf-8", "windows-1252", "Shift_JIS", "GBK", "ISO-8859-1"])
def test_the_encoding_that_it_states(codec: str) -> None:
    value = {"Shift_JIS": "\u4eee\u60f3", "GBK": "\u865a\u62df"}.get(codec, "B\u00fcro")
    data = f'.encoding = "{codec}"\ndisplayName = "{value}"\n'.encode(codec)
    assert parse_settings(data).values["displayname"] == value


def test_a_mark_of_windows_at_the_start() -> None:
    assert parse_settings(b'\xef\xbb\xbf.encoding = "UTF-8"\nmemsize = "64"\n').values[".encoding"] == "UTF-8"


def test_a_key_that_is_repeated() -> None:
    found = parse_settings(b'A="1"\na="2"\nb="3"\nB="3"\n')
    assert found.values == {"a": "2", "b": "3"}
    assert found.repeated == ("a",)


def test_the_number_of_settings_is_limited() -> None:
    found = parse_settings(b"".join(b'k%d="1"\n' % number for number in range(100)) + b'k3="2"\n', limit=5)
    assert list(found.values) == ["k0", "k1", "k2", "k3", "k4"]
    assert found.values["k3"] == "2"


@pytest.mark.parametrize("default", [True, False])
def test_flags(default: bool) -> None:
    def flag(value: str) -> bool:
        return Settings({"a": value}).flag("A", default=default)

    assert all(flag(word) and flag(word.upper()) for word in TRUE)
    assert not any(flag(word) or flag(word.upper()) for word in FALSE)
    assert flag("") is flag("maybe") is Settings().flag("a", default=default) is default


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "\u0661", "1" * 10, "11"])
def test_a_number_that_is_none(value: str) -> None:
    assert Settings({"a": value}).number("a", range(11)) is None


@given(st.dictionaries(KEYS.map(str.lower), PLAIN, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_is_written_is_read(values: dict[str, str], end: str) -> None:
    values.pop("encoding", None)
    written = "".join(f'{key} = "{value}"{end}' for key, value in values.items())
    assert dict(parse_settings(written.encode()).values) == values


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_what_is_escaped_is_read(value: str) -> None:
    escaped = "".join(f"|{ord(one):02X}" if one in '"|#\r\n' else one for one in value)
    assert parse_settings(f'a = "{escaped}"'.encode()).values["a"] == value


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_settings(data: bytes) -> None:
    found = parse_settings(data)
    assert all(key == key.lower() for key in found.values)
    assert set(found.repeated) <= set(found.values)
