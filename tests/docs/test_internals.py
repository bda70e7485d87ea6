"""The page about the internals names packages, imports and files as they are."""

import re

from tests.support.markdown import ROOT, inline_code
from tests.test_house import MAY_IMPORT

PAGE = ROOT / "docs" / "internals.md"


def test_the_table_of_packages_is_that_of_the_house():
    rows = re.findall(r"^\| `(\w+)` \| .+? \| ?(.*?) ?\|$", PAGE.read_text(), re.MULTILINE)

    assert {name: " ".join(imports.split(", ")) for name, imports in rows if name in MAY_IMPORT} == MAY_IMPORT


def test_each_file_that_is_named_exists():
    named = [text for text in inline_code(PAGE) if re.fullmatch(r"[\w/]+\.py", text)]

    assert len(named) > 10
    assert [name for name in named if not (ROOT / "schedulerd" / name).exists() and not (ROOT / name).exists()] == []
