"""What of a job's output reaches a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.cli.terminal import Controls, TerminalText

PIECES = st.lists(
    st.one_of(st.binary(max_size=12), st.sampled_from([b"\x1b", b"[", b"31", b"m", b"\r", b"\n", b"]0;", b"\x9b"]))
)


def shown(*pieces, controls=Controls.SHOW):
    text = TerminalText(controls)
    return b"".join([*map(text.feed, pieces), text.end()]).decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"plain text\n\ta line\n", "plain text\n\ta line\n"),
        (b"\x1b]0;owned\x07", "^[]0;owned^G"),
        (b"\x1b[2J", "^[[2J"),
        (b"\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
        (b"50 %\r60 %", "50 %^M60 %"),
        (b"a line of DOS\r\n", "a line of DOS\n"),
        (b"\x7f\x00", "^?^@"),
        ("\x9b31m \u202e txt".encode(), "<U+009B>31m <U+202E> txt"),
        ("Grüße\u00a0an 東京\u3000🙂".encode(), "Grüße\u00a0an 東京\u3000🙂"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("ü".encode()[:1], r"\xc3"),
    ],
)
def test_control_characters_are_shown_as_text(given, expected):
    assert shown(given) == expected


def test_colours_are_kept_on_request_and_reset_at_the_end():
    text = shown(b"\x1b[1;38:5:9mred\x1b[2J\x1b]0;x\x07", controls=Controls.COLOUR)

    assert text == "\x1b[1;38:5:9mred^[[2J^[]0;x^G\x1b[0m"


def test_an_incomplete_sequence_at_the_end_is_shown_as_text():
    assert shown(b"\x1b[3", b"1H", b"\x1b", controls=Controls.COLOUR) == "^[[31H^["


def test_raw_output_is_passed_through():
    assert TerminalText(Controls.RAW).feed(b"\x1b[2J\xff") == b"\x1b[2J\xff"


@given(PIECES, st.sampled_from([Controls.SHOW, Controls.COLOUR]))
def test_the_result_does_not_depend_on_the_pieces(pieces, controls):
    assert shown(*pieces, controls=controls) == shown(b"".join(pieces), controls=controls)


@given(PIECES)
def test_only_newlines_and_tabs_are_passed_through(pieces):
    assert not [char for char in shown(*pieces) if char not in "\n\t" and (ord(char) < 32 or 127 <= ord(char) < 160)]
