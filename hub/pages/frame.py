"""The frame around every page: the tree of sites, the badges at the top, the running jobs.

It knows what the whole organisation looks like, not what the page in the middle shows. Rule: it
is read on every page, so it reads few rows: sites, nodes, counts, and the jobs in hand.
"""

from typing import Any, Final, cast

from quart import g

from hub import show
from hub.api import read
from hub.pages.asking import may
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.store import FAILED, RUNNING, WAITING

STRIP_JOBS_MAX: Final = 8
TREE_NODES_MAX: Final = 40
"""Most nodes of one site in the tree."""
NAVIGATION: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("overview", "/", "Overview", "o"), ("sites", "/sites", "Sites", "s"),
    ("nodes", "/nodes", "Nodes", "n"), ("mesh", "/mesh", "Mesh", "e"),
    ("servers", "/servers", "Servers", "m"),
    ("pending", "/pending", "Pending", "p"), ("jobs", "/jobs", "Jobs", "j"),
    ("assets", "/assets", "Assets", "a"), ("install", "/install", "Install a node", "i"),
)  # fmt: skip
"""Name, address, words, and the key that goes there after g."""


class Frame:
    """Builds the sections that all pages share."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def sections(self, page: Page) -> tuple[Section, ...]:
        """Return the sections of the frame around a page."""
        return (
            Section("tree", "frame/tree.html", "site node pending job", self._tree),
            Section("badges", "frame/badges.html", "node pending site", self._badges),
            Section("strip", "frame/strip.html", "job", self._strip),
        )

    def _tree(self) -> Json:
        nodes = sites_with_nodes(self._services)
        regions: dict[str, list[Json]] = {}
        for site in nodes:
            regions.setdefault(site["region"] or "no region", []).append(site)
        store = self._services.store
        hidden = () if may("operator") else ("install",)
        return {
            "navigation": [e for e in NAVIGATION if e[0] not in hidden],
            "counts": {
                "pending": sum(store.counts("pending", WAITING).values()),
                "jobs": sum(store.counts("job", RUNNING).values()),
            },
            "regions": [{"name": name, "sites": regions[name]} for name in sorted(regions)],
        }

    def _badges(self) -> Json:
        return {
            "pending": sum(self._services.store.counts("pending", WAITING).values()),
            "problems": problems(self._services),
            "sites": [site["name"] for site in sites_with_nodes(self._services)],
        }

    def _strip(self) -> Json:
        jobs = read.jobs(self._services, limit=STRIP_JOBS_MAX)
        rows = [job for job in jobs if job["state"] in RUNNING]
        total = sum(self._services.store.counts("job", RUNNING).values())
        return {"rows": rows, "total": total}


def problems(services: Services) -> list[str]:
    """Return what wants a person: the hub's own problems, and servers whose work failed."""
    found = services.status.status()["problems"]
    failed = sum(services.store.counts("server", FAILED).values())
    if failed:
        found = [*found, f"work on {failed} server{'' if failed == 1 else 's'} failed"]
    return found


def sites_with_nodes(services: Services) -> list[Json]:
    """Return all sites by name, each with its state in one word and its ``members``.

    Read once a request: the frame and most pages need it.
    """
    known = cast("list[Json] | None", g.get("sites_with_nodes"))
    if known is None:
        known = g.sites_with_nodes = _sites_with_nodes(services)
    return known


def _sites_with_nodes(services: Services) -> list[Json]:
    by_site: dict[str, list[Json]] = {}
    for node in read.nodes(services):
        if "node" in node["roles"] and node["status"] in ("member", "suspended"):
            by_site.setdefault(node["site"], []).append(node)
    found: list[Json] = []
    for site in read.sites(services):
        members: list[dict[str, Any]] = [
            {**node, "state": show.node_state(node, site["nodes_reachable"] > 0)}
            for node in by_site.get(site["name"], [])
        ]
        state = show.site_state(members)
        found.append({**site, "state": state, "members": members[:TREE_NODES_MAX]})
    return found
