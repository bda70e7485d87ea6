"""S2: handlers reach operations of the service only through the check of their role."""

import ast
from pathlib import Path

import pytest

import schedulerd.api
from schedulerd.api.app import Api
from schedulerd.api.routes import ROUTES
from schedulerd.core.errors import ForbiddenError
from schedulerd.core.models import Actor, Role
from schedulerd.service.health import Health
from schedulerd.service.roles import check_role, role_of

HANDLERS = [Path(schedulerd.api.__file__).with_name(f"{name}.py") for name in ("backups", "jobs", "runs", "status")]
OPEN = {"readiness"}  # needs no authentication


def unchecked(tree):
    """Return the uses of the service outside of `api.call` and `api.permitted`."""
    checked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("api.call", "api.permitted"):
            checked |= set(map(id, ast.walk(node.args[1])))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "service"]
    outer = {id(node.value): ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return [outer.get(id(node), ast.unparse(node)) for node in used if id(node) not in checked]


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_s2_handlers_call_no_operation_without_the_check_of_its_role(path):
    assert {name.rpartition(".")[2] for name in unchecked(ast.parse(path.read_text()))} <= OPEN


def test_s2_a_call_without_the_check_is_found():
    assert unchecked(ast.parse("api.service.jobs.pause(1)")) == ["api.service.jobs"]
    assert unchecked(ast.parse("service = api.service")) == ["api.service"]
    assert unchecked(ast.parse("api.permitted(request, api.service.jobs.pause)(1)")) == []


def test_s2_the_role_of_an_operation_is_that_of_its_route():
    assert {route.role for route in ROUTES} == {Role.VIEWER, Role.OPERATOR}
    assert all(route.role is role_of(route.operation) for route in ROUTES)


def test_s2_a_new_health_check_needs_an_operator():
    with pytest.raises(ForbiddenError, match="this needs the role operator; me has the role viewer"):
        check_role(Health.refresh, Actor("me", Role.VIEWER))
    with pytest.raises(ForbiddenError):
        Api.permitted(None, {"actor": Actor("me", Role.VIEWER)}, Health.refresh)
    check_role(Health.refresh, Actor("me", Role.OPERATOR))
