"""Patterns of parameters: the same texts match as with re, whatever the pattern, and none takes for ever."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schedulerd.core.patterns import LONGEST, PatternError, compiled, matches

ATOMS = st.sampled_from([
    "a", "b", "ab", ".", "[ab]", "[^a]", "[a-c0-9_]", r"\d", r"\w", r"\s", r"\W", "^", "$", r"\A", r"\Z", r"\b", "\\n", "ü",
    "(?i:A)", "(?s:.)", "[^\\n]", "", "(?a:\\w)", "(?i:[k-ſ])",
])  # fmt: skip
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}?", "{2,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)
TEXTS = st.text(st.sampled_from("abcAK1_ \nüſ-"), max_size=8)


@given(st.sampled_from(["", "(?i)", "(?m)", "(?s)", "(?a)", "(?ms)"]), PATTERNS, TEXTS)
def test_what_matches_is_what_re_says(flags, pattern, text):
    try:
        expected = re.fullmatch(flags + pattern, text) is not None
    except re.error:
        assume(False)

    assert matches(flags + pattern, text) is expected


@pytest.mark.parametrize("pattern", ["([a-z]+)+", "(a|a)*b", "(.*)*x", "(a?){500}a{500}", "(([a-z])+.)+[A-Z]([a-z])+$"])
def test_what_freezes_re_is_an_ordinary_pattern(pattern):
    assert not matches(pattern, "a" * 400 + "1")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "is not a regular expression: missing ), unterminated subpattern at position 0"),
        (r"(a)\1", "refers to a group, which is not supported"),
        (r"(?P<x>a)(?P=x)", "refers to a group, which is not supported"),
        ("(?=a)a", "looks ahead or behind, which is not supported"),
        ("(?<!a)b", "looks ahead or behind, which is not supported"),
        ("(?>a)", "has an atomic group, which is not supported"),
        ("a++", "has a possessive repetition, which is not supported"),
        (r"\B", r"uses \B, which is not supported"),
        ("a" * (LONGEST + 1), f"is longer than {LONGEST} characters"),
        ("((a{99}){99}){99}", "is too large: with its repetitions expanded it has more than 2000 states"),
    ],
)
def test_what_cannot_be_matched_safely_is_refused_with_the_reason(pattern, why):
    with pytest.raises(PatternError) as error:
        compiled(pattern)
    assert str(error.value) == why
