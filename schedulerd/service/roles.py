"""The role that each operation requires: declared at the operation, read by the routes, checked at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..core.errors import ForbiddenError
from ..core.models import Actor, Role

Operation = TypeVar("Operation", bound=Callable[..., Any])


def needs(role: Role) -> Callable[[Operation], Operation]:
    """Declare the role that an operation requires. Callers cannot reach an operation without one."""

    def mark(operation: Operation) -> Operation:
        operation.role = role  # type: ignore[attr-defined]
        return operation

    return mark


def role_of(operation: Callable[..., Any]) -> Role:
    """Return the role that an operation requires. Raise AttributeError when it declares none."""
    role: Role = operation.role  # type: ignore[attr-defined]
    return role


def check_role(operation: Callable[..., Any], actor: Actor) -> None:
    """Raise ForbiddenError when the role of an actor is lower than the one that an operation requires."""
    role = role_of(operation)
    if actor.role < role:
        raise ForbiddenError(f"this needs the role {role.name.lower()}; {actor.name} has the role {actor.role.name.lower()}")
