"""Writing: orders, tokens, secrets, assets: checks the form, the ports know the meaning."""

from typing import Any, Final, cast

from quart import Blueprint, Response, g, request

from hub.api import shape
from hub.errors import BadRequest
from hub.ports import Principal, Services

TTL_S_MAX: Final = 30 * 24 * 3600
TTL_S: Final = 24 * 3600
SECRET_CHARS_MAX: Final = 16 * 1024
SECRET_KINDS: Final = ("bmc", "opaque")
ORDER_FIELDS: Final = {
    "kind", "site", "server", "machine", "job", "params", "idempotency_key",
}  # fmt: skip


def routes(services: Services) -> Blueprint:
    """Return the routes that change something."""
    api = Blueprint("write", __name__, url_prefix="/api/v1")

    def item(noun: str, value: Any, status: int = 200) -> Response:
        return shape.item(noun, services.clock.now_ms(), value, status)

    @api.after_request
    async def settle(response: Response) -> Response:
        if response.status_code < 300:
            await services.settle()
        return response

    @api.post("/orders")
    async def order() -> Response:
        body = await shape.body(request)
        unknown = body.keys() - ORDER_FIELDS
        if unknown:
            raise BadRequest(f"an order has no field {sorted(unknown)[0][:60]!r}")
        author = cast(Principal, g.principal).name
        return item("order", await services.orders.submit(body, author), 202)

    @api.post("/tokens")
    async def create_token() -> Response:
        body = await shape.body(request)
        site = shape.site_name(shape.text(body, "site"))
        roles = shape.texts(body, "roles", 8) or ["node"]
        ttl_s = shape.whole(body, "ttl_s", 1, TTL_S_MAX, TTL_S)
        token, text = await services.tokens.create(site, roles, ttl_s)
        return item("token", {**token, "token": text}, 201)

    @api.delete("/tokens/<token_id>")
    async def revoke_token(token_id: str) -> Response:
        return item("token", await services.tokens.revoke(token_id))

    @api.put("/secrets/<secret_id>")
    async def set_secret(secret_id: str) -> Response:
        body = await shape.body(request)
        kind = shape.text(body, "kind")
        if kind not in SECRET_KINDS:
            raise BadRequest(f"kind must be one of {', '.join(SECRET_KINDS)}")
        value = body.get("value")
        if not isinstance(value, str) or not 0 < len(value) <= SECRET_CHARS_MAX:
            raise BadRequest(f"value must be text of 1 to {SECRET_CHARS_MAX} characters")
        site = shape.site_name(shape.text(body, "site"))
        name = shape.plain_name(secret_id, "a secret's id")
        return item("secret", await services.secrets.set(name, site, kind, value))

    @api.post("/assets")
    async def declare_asset() -> Response:
        body = await shape.body(request)
        name = shape.plain_name(shape.text(body, "name"), "an asset's name")
        want = [shape.site_name(site) for site in shape.texts(body, "want")]
        url, sha256 = shape.optional_text(body, "url"), shape.optional_text(body, "sha256")
        await services.assets.declare(name, url, sha256, want)
        return item("asset", {"name": name, "url": url, "sha256": sha256, "want": want}, 201)

    @api.post("/assets/<name>/want")
    async def want_asset(name: str) -> Response:
        site = shape.site_name(shape.text(await shape.body(request), "site"))
        await services.assets.want(name, site)
        return item("asset", {"name": name, "want": [site]})

    @api.delete("/assets/<name>/want/<site>")
    async def unwant_asset(name: str, site: str) -> Response:
        await services.assets.unwant(name, shape.site_name(site))
        return item("asset", {"name": name, "want": []})

    return api
