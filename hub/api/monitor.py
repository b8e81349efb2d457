"""For what watches the hub: is it alive, is it ready, its metrics. Beside the API."""

from collections import Counter
from collections.abc import Mapping

from quart import Blueprint, Response

from hub.ports import Services
from mesh.host.memory import resident_bytes
from mesh.rest import metrics


def routes(services: Services) -> Blueprint:
    """Return /healthz and /readyz, which need nobody, and /metrics, which needs a viewer."""
    watch = Blueprint("monitor", __name__)

    @watch.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", content_type="text/plain")

    @watch.get("/readyz")
    async def readyz() -> Response:
        trouble = services.not_ready()
        return Response(
            f"{trouble or 'ready'}\n", 503 if trouble else 200, content_type="text/plain"
        )

    @watch.get("/metrics")
    async def scrape() -> Response:
        store, now_ms = services.store, services.clock.now_ms()
        servers, jobs = (_summed(store.states(kind)) for kind in ("server", "job"))
        members = [n for n in store.documents("node") if n["status"] == "member"]
        found = [
            *metrics.daemon(services.status.status(), now_ms, resident_bytes()),
            metrics.gauge("rackmesh_sites", "Sites known.", len(store.documents("site"))),
            metrics.gauge("rackmesh_members", "Active members of the mesh.", len(members)),
            metrics.gauge("rackmesh_pending", "Machines not accepted.",
                          sum(store.counts("pending").values())),
            metrics.by_state("rackmesh_servers", "Servers by state.", servers),
            metrics.by_state("rackmesh_jobs", "Jobs by state.", jobs),
            metrics.gauge("rackmesh_event_listeners", "Open event streams.",
                          services.bus.listeners),
            *metrics.mesh(services.mesh.mesh(), now_ms),
        ]  # fmt: skip
        return Response(metrics.text(found), content_type=metrics.CONTENT_TYPE)

    return watch


def _summed(by_site: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for states in by_site.values():
        found.update(states)
    return found
