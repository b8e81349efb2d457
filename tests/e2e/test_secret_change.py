"""A BMC's password is changed by a job: what a lost node could read opens nothing any more."""

import json
from pathlib import Path
from typing import Any

from demo_processes import wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run


def secrets_of(site: Fleet) -> dict[str, Any]:
    found = json.loads(run("secret", "list", "--json", "--data", site.hub).out)["items"]
    return {secret["id"]: secret for secret in found}


def test_what_a_node_could_read_is_changed_and_only_the_others_know_it(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=2, image_mib=1) as site:
        site.start_hub()
        site.join("two", site.two, "node", "site-operator")
        site.run_node(site.two, "--subnet", "127.96.0.0/24")
        site.start_rack(site.two)
        site.wait_linked(site.two)
        site.accept(1)
        old = dict(site.bmc_login())
        (before,) = secrets_of(site)

        said = run("secret", "change", "--exposed-to", "nobody", "--data", site.hub)
        assert (said.code, "no node 'nobody'" in one_sentence(said)) == (4, True)
        words = ("secret", "change", "--exposed-to", "node-two", "--yes", "--wait")
        said = run(*words, "--timeout", "60", "--data", site.hub)
        assert said.code == 0, said.err

        now = site.bmc_login()
        assert (now["username"], now["password"] != old["password"]) == (old["username"], True)
        wait_for("the ledger knows", lambda: len(secrets_of(site)) == 2, 30, site.processes)
        after = secrets_of(site)
        (made,) = after.keys() - {before}
        wait_for("the old one is retired",
                 lambda: secrets_of(site)[before]["retired_ms"] is not None, 30,
                 site.processes)  # fmt: skip
        assert after[made]["released"] == after[before]["released"]
        servers = {s["name"]: s for s in site.get(site.hub, "/servers")}
        assert servers["srv1"]["bmc_secret"] == made

        # -- nobody is locked out, and nothing that still opens is exposed twice
        job = site.order("server", "power", "srv1", "on", data=site.two)
        assert site.ended(job, data=site.two)["state"] == "succeeded"
        said = run("secret", "change", before, "--yes", "--data", site.hub)
        assert "no BMC password to change" in said.err
        for folder in (site.two, site.hub):
            word = now["password"].encode()
            assert not [p for p in folder.rglob("*.db*") if word in p.read_bytes()]
        site.no_traceback()
