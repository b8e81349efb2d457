"""A release leaves a record that the hub gives out and that is checked without any member."""

import json
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, run, until


@pytest.mark.slow
def test_a_release_leaves_a_record_that_proves_itself_offline(
    site: Fleet, tmp_path: Path
) -> None:
    if site.server("srv1")["state"] == "available":
        site.succeeded(site.deploy_order("srv1"))
    job = site.order("server", "release", "srv1", "--yes")
    site.succeeded(job)

    def records() -> list[dict[str, object]]:
        found = site.get(site.hub, "/erase-records")
        return [one for one in found if one["job"] == job]

    until("the hub has the record", records)
    (record,) = records()
    assert (record["method"], record["level"], record["samples"]) == ("overwrite", "clear", 256)
    file = tmp_path / "record.json"
    made = run("erase", "export", str(record["id"]), file, "--data", site.hub)
    assert made.code == 0, made
    root = site.status(site.hub)["root_fingerprint"]
    held = run("erase", "verify", file, "--root", root, "--json")
    assert held.code == 0, held
    told = json.loads(held.out)["item"]
    assert (told["node_status"], told["record"]["job"]) == ("member", job)
    assert told["record"]["verified_bytes"] == told["record"]["disk"]["bytes"]
    assert len(told["record"]["session_key"]) == 64
    file.write_bytes(file.read_bytes().replace(b'"overwrite"', b'"nvme-sanitize-crypto"'))
    assert run("erase", "verify", file, "--root", root).code == 1
