"""Accounts and API tokens: for admins alone."""

from hub.api.bind import Bindings
from hub.errors import BadRequest
from hub.ports import Json, Services
from mesh.rest.calls import Call
from mesh.rest.types import Account, ApiToken


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations that change accounts and API tokens, and show one account."""
    accounts, tokens = services.accounts, services.api_tokens

    @on.on("getAccount")
    async def show_account(call: Call) -> Account:
        return accounts.find_or_fail(call.parts["account"]).shown()

    @on.on("createAccount")
    async def create_account(call: Call) -> Account:
        asked = call.body
        return (await accounts.create(asked.name, asked.role, asked.password)).shown()

    @on.on("changeAccount")
    async def change_account(call: Call) -> Account:
        asked = call.body
        if asked.role is None and asked.disabled is None:
            raise BadRequest("say what shall change: role, disabled, or both")
        name = call.parts["account"]
        return (await accounts.change(name, role=asked.role, disabled=asked.disabled)).shown()

    @on.on("setPassword")
    async def set_password(call: Call) -> Account:
        account = await accounts.set_password(call.parts["account"], call.body.password)
        return account.shown()

    @on.on("removeAccount")
    async def remove_account(call: Call) -> Account:
        removed = accounts.find_or_fail(call.parts["account"]).shown()
        await accounts.remove(removed["name"])
        return removed

    @on.on("createApiToken")
    async def create_token(call: Call) -> Json:
        asked = call.body
        token, text = await tokens.create(asked.name, asked.role, asked.ttl_s, call.who)
        return {**token, "token": text}

    @on.on("revokeApiToken")
    async def revoke_token(call: Call) -> ApiToken:
        return await tokens.revoke(call.parts["token"])
