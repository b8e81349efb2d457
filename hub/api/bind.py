"""Handlers bound to the table of operations: the only way a route of the API comes to be.

It knows the forms of calls and answers, not what any operation does. Rules: a handler without
an operation, or an operation of the hub without a handler, ends the program at its start; after
a write the answer leaves when the reporting store has read it.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from quart import Blueprint, Response, g, request

from hub.api import shape
from hub.errors import Conflict, Denied
from hub.ports import Principal, Services
from mesh.rest.calls import KEY_HEADER, Call, read_call
from mesh.rest.operations import OPERATIONS, PREFIX, Operation, find, methods

Handler = Callable[[Call], Awaitable[Any]]
ELSEWHERE: Final = frozenset(
    {"uploadAsset", "signIn", "getSession", "signOut", "changePassword"}
)
"""Served beside this: uploads go past Quart, sessions answer with cookies."""
WITHOUT_KEYS: Final = frozenset({"replaceTrust", "dismissRestoreReport"})
"""Writes of a hub whose own keys nobody has named yet."""
_PART: Final = re.compile(r"<(?:[^<>:]+:)?([^<>]+)>")


class Bindings:
    """The handlers of the hub, by operation."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._handlers: dict[str, Handler] = {}

    def on(self, operation: str) -> Callable[[Handler], Handler]:
        """Bind a handler to an operation of the table."""
        assert operation in OPERATIONS, f"there is no operation {operation}"
        assert operation not in self._handlers, f"{operation} has a handler already"

        def bind(handler: Handler) -> Handler:
            self._handlers[operation] = handler
            return handler

        return bind

    async def call(
        self, operation: str, who: Principal, body: Mapping[str, Any] | None = None,
        key: str | None = None, **parts: str,
    ) -> Any:  # fmt: skip
        """Carry an operation out as a request of the API would; return its item.

        What the console's pages write with: the same checks, roles, limits and memory of keys.
        """
        asked = OPERATIONS[operation]
        may(who, asked)
        check_keys(self._services, asked)
        content = b"" if body is None else json.dumps(body).encode()
        call = read_call(asked, who.name, parts, {}, content, key)
        document = await self._services.answers.answer(call, self._handlers[operation])
        await self._services.settle()
        return document["item"]

    def blueprint(self) -> Blueprint:
        """Return the routes; every operation of the hub must have its handler by now."""
        here = {name for name, o in OPERATIONS.items() if "hub" in o.at} - ELSEWHERE
        assert here == self._handlers.keys(), sorted(here ^ self._handlers.keys())
        api = Blueprint("api", __name__, url_prefix=PREFIX)
        for name, handler in self._handlers.items():
            operation = OPERATIONS[name]
            path = operation.path.replace("{", "<").replace("}", ">")
            view = self._view(operation, handler)
            api.add_url_rule(path, endpoint=name, view_func=view, methods=[operation.method])
        return api

    def _view(
        self, operation: Operation, handler: Handler
    ) -> Callable[..., Awaitable[Response]]:
        async def view(**parts: str) -> Response:
            principal = cast(Principal, g.principal)
            check_keys(self._services, operation)
            body = b""
            if operation.body is not None:
                body = cast(bytes, await request.get_data(as_text=False))
            call = read_call(
                operation, principal.name, parts, request.args.to_dict(), body,
                request.headers.get(KEY_HEADER),
            )  # fmt: skip
            answer = await self._services.answers.answer(call, handler)
            if isinstance(answer, Response):
                return answer
            if operation.method != "GET":
                await self._services.settle()
            return shape.answer(answer, operation.status)

        return view


def operation_of(method: str, rule: str | None) -> Operation | None:
    """Return the operation that a route of the application stands for."""
    if rule is None or not rule.startswith(f"{PREFIX}/"):
        return None
    found = find(
        "GET" if method == "HEAD" else method, _PART.sub(r"{\1}", rule).removeprefix(PREFIX)
    )
    return found[0] if found else None


def allowed(path: str, known: str) -> str:
    """Return the methods of an address: Quart knows ``known``, uploads stand beside it."""
    if not path.startswith(f"{PREFIX}/"):
        return known
    found = {*known.split(", "), *methods(path.removeprefix(PREFIX), "hub")}
    return ", ".join(sorted(found))


def may(principal: Principal, operation: Operation | None) -> None:
    """Raise Denied unless somebody has the role that an operation needs."""
    if operation is not None and not operation.allows(principal.role):
        raise Denied(
            f"{operation.summary[:-1].lower()} needs the role {operation.role};"
            f" {principal.name} is {principal.role}"
        )


def check_keys(services: Services, operation: Operation) -> None:
    """Raise Conflict for a write at a hub that joined and whose keys are not named yet."""
    if operation.method == "GET" or operation.id in WITHOUT_KEYS:
        return
    trouble = services.trust.read_only()
    if trouble is not None:
        raise Conflict(trouble)
