"""Which hooks an order carries: chosen when it is given, with nothing left to look up later.

Hub and node use the same function. It knows rows and names. Rule: hooks of the order's kind
that are of its site or of every site, in the order of their names; what a hook needs and is not
there is refused with one sentence before anything is signed.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mesh.proto.content import FILE
from mesh.proto.hook import HOOKS_MAX, Hook
from mesh.rest.problems import RequestProblem

Body = Mapping[str, Any]


def hooks_for(
    verb: str,
    site: str,
    hooks: Mapping[str, Hook],
    images: Mapping[str, Body],
    asset: Callable[[Any, str], str],
) -> list[dict[str, Any]]:
    """Return the hooks of an order as they stand in it; raises RequestProblem.

    ``asset(id, name)`` returns the id of an asset's content, or says that it is not known.
    """
    chosen = [
        hook for _, hook in sorted(hooks.items())
        if hook.verb == verb and hook.site in (None, site)
    ]  # fmt: skip
    if len(chosen) > HOOKS_MAX:
        raise RequestProblem(
            "conflict",
            f"{len(chosen)} hooks belong to {verb} at {site}, at most {HOOKS_MAX} fit",
        )
    return [_whole(hook, site, images, asset).body() for hook in chosen]


def _whole(
    hook: Hook, site: str, images: Mapping[str, Body], asset: Callable[[Any, str], str]
) -> Hook:
    if hook.secret is not None:
        hook = replace(hook, secret=hook.secret.replace("{site}", site))
    if hook.asset is None:
        return hook
    found = images.get(hook.asset)
    if found is None or found["kind"] != FILE:
        raise RequestProblem(
            "conflict",
            f"the hook {hook.name} runs the asset {hook.asset}, which is no file that is there",
        )
    return replace(hook, asset_id=asset(found["asset"], hook.asset))
