"""Writing: orders, tokens, secrets; the ports behind know the meaning."""

from typing import cast

from quart import g

from hub.api.bind import Bindings
from hub.api.shape import plain_name
from hub.errors import Denied
from hub.ports import Json, Principal, Services
from mesh.proto.order import CANCEL, RETRY
from mesh.proto.trust import ROLE_HUB
from mesh.rest.calls import Call, given
from mesh.rest.import_types import Imported
from mesh.rest.requests import TTL_S
from mesh.rest.roles import covers
from mesh.rest.types import GroupAccepted, GroupVerb, OrderAccepted, Pending, Secret, Token


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations that change something."""

    @on.on("createOrder")
    async def order(call: Call) -> OrderAccepted:
        return await services.orders.submit(given(call.body), call.who, call.keep)

    @on.on("createGroup")
    async def group(call: Call) -> GroupAccepted:
        return await services.orders.submit_group(given(call.body), call.who, call.keep)

    @on.on("importServers")
    async def import_servers(call: Call) -> Imported:
        return await services.orders.submit_import(call.body, call.who, call.keep)

    @on.on("cancelGroup")
    async def cancel_group(call: Call) -> GroupVerb:
        return await services.orders.tell_group(
            call.parts["group"], CANCEL, call.who, call.keep
        )

    @on.on("retryGroup")
    async def retry_group(call: Call) -> GroupVerb:
        return await services.orders.tell_group(call.parts["group"], RETRY, call.who, call.keep)

    @on.on("rejectMachine")
    async def reject(call: Call) -> Pending:
        return await _verdict(call, True)

    @on.on("restoreMachine")
    async def restore(call: Call) -> Pending:
        return await _verdict(call, False)

    async def _verdict(call: Call, rejected: bool) -> Pending:
        machine, site = call.parts["machine"], call.body.site
        return await services.verdicts.give(machine, site, rejected, call.who)

    @on.on("createToken")
    async def create_token(call: Call) -> Json:
        asked = call.body
        roles = asked.roles or ["node"]
        if ROLE_HUB in roles and not covers(cast(Principal, g.principal).role, "admin"):
            raise Denied(
                "a join token for a hub needs the role admin: a hub knows all accounts"
            )
        token, text = await services.tokens.create(
            asked.site or "", roles, asked.ttl_s or TTL_S
        )
        return {**token, "token": text}

    @on.on("revokeToken")
    async def revoke_token(call: Call) -> Token:
        return await services.tokens.revoke(call.parts["token"])

    @on.on("setSecret")
    async def set_secret(call: Call) -> Secret:
        asked = call.body
        name = plain_name(call.parts["secret"], "a secret's id")
        return await services.secrets.set(name, asked.site, asked.kind, asked.value)
