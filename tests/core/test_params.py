"""Parameters: a value is taken only as what it is declared to be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError, InvalidError
from schedulerd.core.models import Param, ParamType
from schedulerd.core.params import as_text, check_params, checked

INTEGER, NUMBER, TEXT, DATE = ParamType.INTEGER, ParamType.NUMBER, ParamType.TEXT, ParamType.DATE


@pytest.mark.parametrize(
    ("param", "value", "taken"),
    [
        (Param(), "plain text", "plain text"),
        (Param(multiline=True), "two\nlines", "two\nlines"),
        (Param(pattern="-[a-z]"), "-v", "-v"),
        (Param(INTEGER, minimum=1, maximum=5), 5, 5),
        (Param(INTEGER), "-12", -12),
        (Param(NUMBER), 0.5, 0.5),
        (Param(NUMBER), "2.5", 2.5),
        (Param(ParamType.BOOLEAN), "true", True),
        (Param(ParamType.BOOLEAN), False, False),
        (Param(DATE), "2028-02-29", "2028-02-29"),
        (Param(ParamType.CHOICE, choices=("a", 2)), "2", 2),
        (Param(TEXT, choices=("a", "b")), "b", "b"),
    ],
)
def test_a_valid_value_is_accepted(param, value, taken):
    assert checked(param, value) == taken


@pytest.mark.parametrize(
    ("param", "value", "expected"),
    [
        (Param(), 5, "a text"),
        (Param(), None, "a text"),
        (Param(), ["x"], "a text"),
        (Param(max_length=3), "four", "at most 3 characters"),
        (Param(), "a\nb", "one line"),
        (Param(), "a\rb", "one line"),
        (Param(multiline=True), "a\0b", "without NUL"),
        (Param(), "-oProxyCommand=id", "does not begin with '-'"),
        (Param(multiline=True), "-x", "does not begin with '-'"),
        (Param(pattern="[a-z]+"), "abc\n", "one line"),
        (Param(pattern="[a-z]+"), "abc1", "a text that matches"),
        (Param(INTEGER), True, "a whole number"),
        (Param(INTEGER), 1.0, "a whole number"),
        (Param(INTEGER), "1e3", "a whole number"),
        (Param(INTEGER), "٣", "a whole number"),
        (Param(INTEGER), 2**63, "a whole number"),
        (Param(INTEGER, minimum=1), 0, "greater than or equal to 1"),
        (Param(NUMBER, maximum=1), 1.5, "less than or equal to 1"),
        (Param(NUMBER), float("nan"), "a number"),
        (Param(NUMBER), float("inf"), "a number"),
        (Param(NUMBER), "nan", "a number"),
        (Param(ParamType.BOOLEAN), 1, "true or false"),
        (Param(ParamType.BOOLEAN), "yes", "true or false"),
        (Param(DATE), "2027-02-29", "a date"),
        (Param(DATE), "20270228", "a date"),
        (Param(DATE), 20270228, "a date"),
        (Param(ParamType.CHOICE, choices=("a", "b")), "c", "one of a, b"),
        (Param(ParamType.CHOICE, choices=("a", "b")), {}, "one of a, b"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_reason(param, value, expected):
    with pytest.raises(ValueError, match=expected):
        checked(param, value)


@given(st.sampled_from(ParamType), st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_an_accepted_value_is_plain_json_and_one_argument(kind, value):
    param = Param(kind, choices=("a",) if kind is ParamType.CHOICE else ())
    try:
        taken = checked(param, value)
    except ValueError:
        return
    assert json.loads(json.dumps(taken, allow_nan=False)) == taken
    assert not set(as_text(taken)) & set("\0\n\r")


def test_all_parameters_are_returned_with_their_defaults():
    declared = {"day": Param(DATE, "2026-01-01"), "count": Param(INTEGER)}

    assert check_params(declared, {"count": 3}) == {"day": "2026-01-01", "count": 3}
    assert check_params({}, None) == check_params({}, {}) == {}


@pytest.mark.parametrize(
    ("given_", "name", "kind"),
    [({}, "count", "missing"), (None, "count", "missing"), ({"cuont": 1}, "cuont", "extra_forbidden"),
     ({"count": "x"}, "count", "value_error")],
)  # fmt: skip
def test_an_error_says_where_it_is(given_, name, kind):
    with pytest.raises(InvalidError) as error:
        check_params({"count": Param(INTEGER)}, given_)

    assert (error.value.detail["loc"], error.value.detail["type"]) == (["body", "params", name], kind)


def job(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(f"jobs:\n  j: {text}\n")
    path.chmod(0o600)
    return load(str(path)).jobs["j"]


def test_declarations_are_read_from_the_file(tmp_path):
    text = """{shell: x, params: {day: {type: date, default: 2026-01-01}, mode: {choices: [fast, 2], default: fast},
               n: {type: integer, minimum: 1, maximum: 9}, t: {}}}"""

    assert job(tmp_path, text).params == {
        "day": Param(DATE, "2026-01-01"),
        "mode": Param(ParamType.CHOICE, "fast", choices=("fast", 2)),
        "n": Param(INTEGER, minimum=1, maximum=9),
        "t": Param(),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{shell: x, params: {Day: {}}}", "'Day' is not a name of a parameter"),
        ("{shell: x, params: {a: {type: txet}}}", "did you mean 'text'?"),
        ("{shell: x, params: {a: {type: date, minimum: 1}}}", "minimum is not valid for the type date"),
        ("{shell: x, params: {a: {type: integer, default: two}}}", "'two' is not a whole number"),
        ("{shell: x, params: {a: {pattern: '['}}}", "'[' is not a regular expression"),
        ("{shell: x, params: {a: {type: choice}}}", "a choice needs choices"),
        ("{shell: x, every: 1m, params: {a: {}}}", "parameter a needs a default because the job has a trigger"),
        ("{command: [ls, {param: a}], params: {b: {}}}", "unknown parameter 'a'"),
        ("{command: [{param: b}], params: {b: {}}}", "the program cannot be a parameter"),
        ("{command: [ls, {parm: b}], params: {b: {}}}", "expected a text, or {param: NAME}"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_a_mistake(tmp_path, text, told):
    with pytest.raises(ConfigError) as error:
        job(tmp_path, text)

    assert told in str(error.value)
