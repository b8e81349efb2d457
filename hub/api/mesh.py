"""The mesh as this hub sees it: live, never out of the reporting store."""

from hub.api.bind import Bindings
from hub.ports import Services
from mesh.rest.calls import Call
from mesh.rest.mesh_types import Mesh, Topology


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations on the mesh."""

    @on.on("getMesh")
    async def mesh(_call: Call) -> Mesh:
        return services.mesh.mesh()

    @on.on("getTopology")
    async def topology(_call: Call) -> Topology:
        return await services.mesh.gather()
