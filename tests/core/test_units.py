import pytest

from schedulerd.core.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1d", 86400),
        ("250ms", 0.25),
        (0, 0),
    ],
)
def test_a_duration_is_parsed_in_its_notations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "10x",
        "-5",
        -5,
        True,
        None,
        "5m later",
        "1h-30m",
        [],
        "1:30",
        "101 d 99999999999d",
        "9" * 400,
        10**12,
        "²",
    ],
)
def test_an_invalid_duration_is_rejected(text):
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [(4096, 4096), ("512K", 524288), ("10M", 10485760), ("1.5G", 1610612736), ("7", 7)]
)
def test_a_size_is_read_in_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["big", "10X", -1, True, None, "M"])
def test_an_invalid_size_is_rejected(text):
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.035, "35ms"), (4.25, "4.2s"), (90, "1m 30s"), (5400, "1h 30m"), (200000, "2d 7h")]
)
def test_a_duration_is_shown_in_two_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["512M", "1536K", "1000", "2G", "0", "3T"])
def test_a_size_is_written_as_it_is_read(text):
    assert format_size(parse_size(text)) == text
