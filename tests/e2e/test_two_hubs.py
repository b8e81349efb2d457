"""Two hubs: the second joins, the first dies, work goes on at the second, the first returns."""

import json
from pathlib import Path
from typing import Any

from demo_processes import RACKMESH, rackmesh, wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run

PASSPHRASE = "correct horse canary staple"


class TwoHubs:
    """A fleet with a second hub beside the first."""

    def __init__(self, site: Fleet) -> None:
        self.site, self.first, self.second = site, site.hub, site.folder / "hub-b"
        self.token = site.folder / "hub-token"
        self.token.write_text(
            rackmesh("token", "create", "--role", "hub", "--data", self.first)
        )

    def join(self) -> str:
        """Join the second hub; return its id."""
        said = run(
            "hub", "join", "--token-file", self.token, "--data", self.second,
            "--name", "second", "--region", "eu", "--advertise", "127.0.0.1", "--json",
        )  # fmt: skip
        assert said.code == 0, said.err
        return str(json.loads(said.out)["item"]["hub"])

    def run(self, port: int = 0) -> None:
        """Run the second hub."""
        self.site.processes.start(
            "hub-b", RACKMESH, "hub", "up", "--data", self.second, "--listen", "127.0.0.1",
            "--port", str(port),
        )  # fmt: skip
        wait_for("it answers", lambda: self.site.status(self.second), 30, self.site.processes)

    def wait(self, what: str, check: Any, timeout_s: float = 60.0) -> Any:
        return wait_for(what, check, timeout_s, self.site.processes)

    def hub_of(self, node: Path) -> list[str]:
        """Return the ids of the hubs that a node is linked to."""
        status = self.site.status(node)
        return [p["node"] for p in status["peers"] if p["role"] == "hub"] if status else []

    def sees(self, hub: Path) -> Any:
        """Return what a hub knows of servers, jobs, assets, sites, accounts and hubs."""
        nouns = ("servers", "jobs", "assets", "accounts", "hubs", "tokens", "secrets")
        found = {noun: self.site.get(hub, f"/{noun}") for noun in nouns}
        for token in found["tokens"] or ():  # who came with it is told by that hub alone
            for live in ("contacted_ms", "refused", "refused_ms"):
                token.pop(live)
        return found


def bad_words(at: TwoHubs, hub_id: str) -> None:
    """What goes wrong with the second hub is one sentence each."""
    site = at.site
    node_token = rackmesh("token", "create", "--site", "one", "--data", at.first)
    said = run(
        "hub", "join", "--token-file", "-", "--data", site.folder / "x", stdin=node_token
    )
    assert (said.code, "for a node of site one" in one_sentence(said)) == (6, True)
    said = run("node", "join", "--token-file", at.token, "--data", site.folder / "x")
    assert (said.code, "rackmesh hub join" in one_sentence(said)) == (6, True)
    said = run("hub", "join", "--token-file", at.token, "--data", site.folder / "other")
    assert (said.code, "used by another" in one_sentence(said)) == (6, True)
    said = run("hub", "up", "--data", site.folder / "other", "--port", "0")
    assert (said.code, "a join did not end" in one_sentence(said)) == (1, True)
    said = run("hub", "join", "--token-file", at.token, "--data", at.second)
    assert (said.code, "is in use by" in one_sentence(said)) == (6, True)
    said = run("hub", "root", "admit", hub_id, "--data", at.second)
    assert (said.code, "--root FILE" in one_sentence(said)) == (4, True)
    said = run("hub", "root", "admit", "a" * 32, "--data", at.first)
    assert (said.code, "has joined" in one_sentence(said)) == (4, True)
    said = run("hub", "root", "void", hub_id, "--data", at.first)
    assert (said.code, "no such key" in one_sentence(said)) == (1, True)
    for words in (("token", "create", "--site", "x"), ("account", "remove", "admin")):
        said = run(*words, "--data", at.second)
        assert (said.code, "only reads" in one_sentence(said)) == (7, True), words


def the_second_is_gone_for_good(at: TwoHubs, hub_id: str, first_id: str) -> None:
    """Its keys are taken back: it only reads, and whom it has admitted stays."""
    site = at.site
    site.processes.stop("hub-b")
    for data in (site.one, site.two):
        at.wait("back at the first", lambda at_=data: at.hub_of(at_) == [first_id])
    said = run("hub", "root", "void", hub_id, "--data", at.first)
    assert (said.code, "document 3" in said.out) == (0, True), said.err
    newest = site.folder / "newest"
    site.join("one", newest)
    site.run_node(newest)
    for data in (at.first, newest):  # whom it admitted stays, also for who joins later
        at.wait("late is a member", lambda at_=data: any(
            node["name"] == "late" and node["status"] == "member"
            for node in site.get(at_, "/nodes") or ()
        ))  # fmt: skip
    at.run()
    at.wait("it learns that", lambda: "only reads" in str(site.status(at.second)["problems"]))


def test_a_second_hub_works_on_when_the_first_is_gone(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=1, image_mib=1) as site:
        site.start_sites()
        site.accept(1)
        at = TwoHubs(site)
        hub_id = at.join()
        assert at.join() == hub_id, "doing it again is harmless"
        at.run()
        at.wait("hubs meet", lambda: len(at.sees(at.second)["hubs"] or ()) == 2)

        # -- before the root names its keys it shows everything and changes nothing
        at.wait("it shows the server", lambda: site.server("srv1", at.second))
        at.wait("it knows the accounts", lambda: site.get(at.second, "/accounts"))
        at.wait("the first says who waits", lambda: any(
            f"hub root admit {hub_id}" in said for said in site.status(at.first)["problems"]
        ))  # fmt: skip
        bad_words(at, hub_id)
        said = run("hub", "root", "admit", hub_id, "--data", at.first)
        assert (said.code, "trust document 2" in said.out) == (0, True), said.err
        at.wait("it may write", lambda: not site.status(at.second)["problems"])
        said = run("account", "add", "ann", "--role", "viewer", "--password-file", "-",
                   "--data", at.second, stdin=PASSPHRASE)  # fmt: skip
        assert said.code == 0, said.err
        at.wait("both know ann", lambda: at.sees(at.first) == at.sees(at.second))
        nodes = {node["id"] for node in site.get(at.first, "/nodes") if node["site"]}

        # -- the first dies: nodes go to the second, and its orders reach the site
        first_id = site.status(at.first)["node"]
        site.kill("hub")
        for data in (site.one, site.two):
            at.wait("nodes find the other", lambda at_=data: at.hub_of(at_) == [hub_id])
        job = site.order("server", "power", "srv1", "on", data=at.second)
        assert site.ended(job, data=at.second)["state"] == "succeeded"
        said = run("token", "create", "--site", "one", "--data", at.second)
        late = site.folder / "late"
        joined = run(
            "node",
            "join",
            "--token-file",
            "-",
            "--name",
            "late",
            "--data",
            late,
            stdin=said.out,
        )
        assert joined.code == 0, joined.err

        # -- the first comes back: nothing is lost, both show the same, nodes are at home again
        site.start_hub()
        at.wait("equal", lambda: at.sees(at.first) == at.sees(at.second), 90)
        assert site.job(job, at.first)["state"] == "succeeded"
        assert {"ann", "admin"} == {a["name"] for a in site.get(at.first, "/accounts")}
        for hub in (at.first, at.second):
            at.wait("every node is reached, by one or the other", lambda hub_=hub: nodes <= {
                node["id"] for node in site.get(hub_, "/nodes") if node["reachable"]
            })  # fmt: skip

        the_second_is_gone_for_good(at, hub_id, first_id)
        site.no_traceback()


def test_the_exported_root_key_names_a_hub_from_anywhere(tmp_path: Path) -> None:
    secret, stick = tmp_path / "passphrase", tmp_path / "root.key"
    secret.write_text(PASSPHRASE + "\n")
    with fleet(tmp_path / "f", servers=1, image_mib=1) as site:
        site.processes.start(
            "hub", *site.hub_words(), "--root-passphrase-file", secret
        )  # fmt: skip
        wait_for("the hub answers", lambda: site.status(site.hub), 30, site.processes)
        said = run("hub", "root", "export", stick, "--data", site.hub)
        assert said.code == 0, said.err
        at = TwoHubs(site)
        hub_id = at.join()
        at.run()
        at.wait("hubs meet", lambda: len(at.sees(at.second)["hubs"] or ()) == 2)
        words = ("hub", "root", "admit", hub_id, "--root", stick, "--data", at.second)
        said = run(*words)
        assert (said.code, "--passphrase-file" in one_sentence(said)) == (2, True)
        said = run(*words, "--passphrase-file", "-", stdin="wrong horse")
        assert (said.code, "passphrase of the root key is wrong" in said.err) == (1, True)
        said = run(*words, "--passphrase-file", "-", "--json", stdin=PASSPHRASE)
        assert said.code == 0, said.err
        assert json.loads(said.out)["item"]["version"] == 2
        at.wait("the first knows too", lambda: site.get(at.first, "/trust")["version"] == 2)
        for name in ("hub", "hub-b"):
            assert PASSPHRASE not in site.log(name)
        site.no_traceback()
