"""Secrets are masked in all their forms, also when there are many, and wherever they stand."""

import base64
import html
import json
import re
import shlex
import subprocess
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulerd.secrets import masking
from schedulerd.secrets.forms import MOST_LINES, SHORTEST_MASKED_OF_FILE, forms_of
from schedulerd.secrets.index import Index
from schedulerd.secrets.masking import Mask, masked_output, masked_value

ODD = "p@ss w/rd'$%\"<x>\\\té"
LINES = [base64.b64encode(bytes(range(start, start + 48))).decode() for start in range(0, 200, 7)]
KEY = "\n".join(["-----BEGIN PRIVATE KEY-----", *LINES, "c2hvcnQ=", "abc=", "-----END PRIVATE KEY-----", ""])


BASH_Q = ["bash", "-c", 'printf %q "$1"', "-"]


def shown(text, *secrets):
    return masked_output(text.encode(), forms_of(secrets)).decode()


@pytest.mark.parametrize("form", [
    str, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), lambda text: json.dumps(text).replace("/", "\\/"),
    lambda text: json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e"),
    repr, quote, lambda text: quote(text, safe=""), quote_plus,
    lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text)),
    shlex.quote, html.escape, lambda text: text.replace("'", "'\\''"), lambda text: text + "\n", lambda text: f"\n{text} ",
    lambda text: subprocess.run([*BASH_Q, text], capture_output=True, text=True, check=True).stdout,
])  # fmt: skip
@pytest.mark.parametrize("secret", [ODD, "it's a p/w", "plain-password"])
def test_a_secret_is_masked_in_all_encodings(form, secret):
    text = shown(f"<<{form(secret)}>>", secret)

    assert text.replace("'", "").replace('"', "").strip("<> \n$") == "***"


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("after", ["", "\n", "@host", "  "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_at_most_two_characters_of_a_secret_in_base64_remain(before, after, encode):
    secret = "?>>hunter2?>>"
    text = encode(f"{before}{secret}{after}".encode()).decode()
    left = shown(text, secret)

    assert left.count("***") == 1
    around = len(base64.b64encode((before + after).encode()).decode())
    assert len(left) - 3 <= around + 4


def test_a_secret_with_white_space_around_it_is_known_without_it():
    assert shown("[tok]\n[toke]", " toke \n\n", "tok") == "[tok]\n[***]"


def test_lines_of_a_key_are_known_from_eight_bytes_on_and_its_dashes_are_none():
    text = shown(f"-----BEGIN PRIVATE KEY-----\n{LINES[3]}\nx {quote(LINES[5], safe='')} y\nc2hvcnQ= abc=\n", KEY)

    assert text == "-----BEGIN PRIVATE KEY-----\n***\nx *** y\n*** abc=\n"


@pytest.mark.parametrize("width", [64, 76])
def test_a_key_in_base64_that_is_wrapped_is_known(width):
    text = base64.b64encode(KEY.encode()).decode()
    wrapped = "\n".join(text[at : at + width] for at in range(0, len(text), width))

    assert len(shown(wrapped, KEY).replace("***", "").replace("\n", "")) < 8


def test_of_a_secret_with_many_lines_some_and_all_of_it_are_known():
    lines = [f"line number {number:05}" for number in range(10 * MOST_LINES)]
    secret = "\n".join(lines)

    assert shown(lines[MOST_LINES - 1], secret) == "***"
    assert shown(secret, secret) == "***"


def test_values_of_the_result_are_masked_in_any_form():
    found = masked_value({quote(ODD): [json.dumps(ODD)]}, forms_of([ODD]))

    assert found == {"***": ['"***"']}


WORDS = st.lists(st.binary(min_size=4, max_size=90), min_size=1, max_size=60, unique=True)


@given(WORDS, st.data())
def test_the_index_misses_no_secret_wherever_it_stands(secrets, data):
    index = Index(secrets)
    chosen = data.draw(st.sampled_from(secrets))
    text = data.draw(st.binary(max_size=70)) + chosen + data.draw(st.binary(max_size=9))

    assert chosen in index.found_in(text)
    assert {secret for secret in secrets if secret in text} <= set(index.found_in(text))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4000), max_size=20), st.integers(0, 9))
def test_a_key_is_masked_in_output_that_arrives_in_pieces(cuts, before):
    secrets = forms_of([KEY])
    data = b"x" * before + "\n".join([LINES[2], "between", quote(LINES[4]), json.dumps(KEY), KEY]).encode() + b" end"
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    mask = Mask(secrets)
    found = b"".join(mask.feed(data[a:b]) for a, b in pairwise(places)) + mask.flush()

    whole = Mask(secrets)
    assert found == whole.feed(data) + whole.flush()
    assert len(found) == len(data)
    assert not [line for line in LINES if line.encode()[4:20] in found]
    assert b"between" in found


def test_what_is_too_short_is_known_in_no_form():
    assert forms_of(["abc", " a\n"]) == ()
    assert min(map(len, forms_of(["x" * SHORTEST_MASKED_OF_FILE]))) == SHORTEST_MASKED_OF_FILE


def test_what_repeats_itself_costs_no_more_than_its_length():
    mask = Mask(forms_of(["a" * 100_000 + "b"]))
    data = b"a" * 1_000_000

    assert len(b"".join(mask.feed(data[at : at + 65536]) for at in range(0, len(data), 65536)) + mask.flush()) == len(data)


def plainly_masked(data, secret):
    found = bytearray(data)
    for at in range(len(data)):
        if data.startswith(secret, at):
            found[at : at + len(secret)] = b"*" * len(secret)
    return bytes(found)


@given(st.text("ab", min_size=1, max_size=5), st.integers(1, 9), st.text("ab", max_size=40), st.data())
def test_a_secret_that_overlaps_itself_is_masked_everywhere(unit, times, more, data):
    text = (unit * times + more + unit * times).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    secret = text[at : at + data.draw(st.integers(1, 12))]
    mask = Mask([secret])
    certain = len(text) - len(secret)  # what may begin a secret at the end is masked, too

    assert (mask.feed(text) + mask.flush())[:certain] == plainly_masked(text, secret)[:certain]


def test_a_secret_that_repeats_itself_is_found_once_in_all_that_does():
    assert list(masking.spans_of([b"abab", b"aa", b"abb"], b"ab" * 10_000)) == [(0, 20_000)]
