"""A scan is a job: what it finds stands as rows, and a server is accepted from there."""

import json
from functools import partial

import pytest
import trio

from mesh.errors import Refused
from mesh.proto import tables
from mesh.rest.bmc_view import bmcs
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from tests.support.work_site import WorkSite


async def test_a_scan_is_a_job_and_leaves_what_it_found(tmp_path):
    config = RackConfig(servers=1, node_data=tmp_path, data=tmp_path / "rack")
    async with trio.open_nursery() as nursery:
        info: RackInfo = await nursery.start(partial(run_rack, config))
        origin = info.servers[0].bmc.partition("/redfish")[0]
        port = int(origin.rpartition(":")[2])
        async with WorkSite(tmp_path).running(machine=False) as site:
            params = {"networks": ["127.0.0.0/29"], "ports": [port], "rmcp_port": 9}
            job = await site.end(await site.give("bmc.scan", params))
            assert (job["state"], job["error"]) == ("succeeded", None)
            evidence = job["steps"][0]["evidence"]
            assert (evidence["addresses"], evidence["asked"]) == (6, 6)
            assert (evidence["found"], evidence["redfish"]) == (1, 1)
            (row,) = site.store.authored(site.scope, tables.BMC_SIGHTING)
            assert (row.key, row.body["vendor"]) == (origin, "Rackmesh")
            first = row.body["first_ms"]
            await site.end(await site.give("bmc.scan", params))
            (row,) = site.store.authored(site.scope, tables.BMC_SIGHTING)
            assert row.body["first_ms"] == first <= row.body["last_ms"]
            (shown,) = bmcs("lab", [(row.author, row.body)], [])
            assert json.loads(json.dumps(shown))["servers"] == []
            owner = {"name": "srv1", "bmc": {"url": info.servers[0].bmc}}
            (shown,) = bmcs("lab", [(row.author, row.body)], [owner])
            assert shown["servers"] == ["srv1"]
        nursery.cancel_scope.cancel()


async def test_a_scan_of_no_network_says_what_is_missing(tmp_path):
    async with WorkSite(tmp_path).running(machine=False) as site:
        job = await site.end(await site.give("bmc.scan", {"networks": []}))
        assert job["state"] == "failed"
        assert "oob_networks" in job["error"]


@pytest.mark.parametrize("networks", [["10.0.0.0/19"], ["::1/128"], ["x"], ["224.0.0.0/24"]])
async def test_what_is_no_network_or_too_many_addresses_is_no_order(tmp_path, networks):
    site = WorkSite(tmp_path)
    with pytest.raises(Refused, match="networks"):
        site.order("bmc.scan", {"networks": networks})
