"""Links of the documentation lead somewhere, and its lines are not too long."""

import pytest

from tests.support.markdown import PAGES, ROOT, anchors, links, name_of, prose

WIDTH = 100


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_link_leads_to_a_file_and_a_heading(page):
    dead = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path.startswith(("https:", "http:", "mailto:")):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)

    assert dead == []


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) != "tests/security/README.md"], ids=name_of)
def test_lines_of_prose_are_short(page):
    lines = prose(page).splitlines()

    assert [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "!["))] == []


def test_every_page_is_in_the_table_of_the_readme():
    linked = {link.partition("#")[0] for link in links(ROOT / "README.md")}

    assert [name_of(page) for page in PAGES if page.parent.name == "docs" and name_of(page) not in linked] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
