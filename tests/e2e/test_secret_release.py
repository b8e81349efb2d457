"""A node that joined later gets the site's secrets when somebody says so, and works alone."""

import json
from pathlib import Path
from typing import Any

from demo_processes import wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run


def ledger(site: Fleet) -> Any:
    (secret,) = json.loads(run("secret", "list", "--json", "--data", site.hub).out)["items"]
    return set(secret["released"])


def test_a_later_node_runs_a_job_with_the_bmc_after_a_release(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=1, image_mib=1) as site:
        site.start_hub()
        site.join("two", site.two, "node", "site-operator")
        site.run_node(site.two, "--subnet", "127.95.0.0/24")
        site.start_rack(site.two)
        site.wait_linked(site.two)
        site.accept(1)
        late = site.folder / "late"
        site.join("two", late, "node", "site-operator")
        site.run_node(late)
        site.wait_linked(late)
        nodes = {n["name"]: n["id"] for n in site.get(site.hub, "/nodes") if n["site"]}
        assert ledger(site) == {nodes["node-two"]}

        # -- without the secret: while the first is away, nobody takes the order up
        site.processes.stop("node-two")
        job = site.order("server", "power", "srv1", "on", data=late)
        site.run_node(site.two)
        assert site.ended(job, data=late)["state"] == "succeeded"
        assert site.job(job, late)["runner"] == nodes["node-two"]

        # -- released by the hub's word
        said = run("secret", "release", "--node", "nobody", "--data", site.hub)
        assert (said.code, "no node 'nobody'" in one_sentence(said)) == (4, True)
        words = ("secret", "release", "--node", "late", "--wait", "--timeout", "60")
        said = run(*words, "--data", site.hub)
        assert said.code == 0, said.err
        assert "secret.release of late: succeeded" in said.out
        wait_for("the ledger knows", lambda: ledger(site) == set(nodes.values()), 30,
                 site.processes)  # fmt: skip

        # -- and alone, hub or no hub
        site.processes.stop("node-two")
        site.kill("hub")
        off = site.order("server", "power", "srv1", "off", data=late)
        assert site.ended(off, data=late)["state"] == "succeeded"
        assert site.job(off, late)["runner"] == nodes["late"]
        password = site.bmc_login()["password"].encode()
        for folder in (late, site.two, site.hub):
            held = [p for p in folder.rglob("*.db*") if password in p.read_bytes()]
            assert not held, "the password stands nowhere in plain"
        site.no_traceback()
