"""A BMC with several addresses in a job: which way was taken stands in the step's evidence."""

from pathlib import Path

import pytest

from drivers.capabilities import Attempt
from mesh.errors import CodecError
from mesh.proto.enrol import check_bmc
from node.work.logins import _same
from tests.support.work_site import WorkSite

WAYS = "https://10.0.0.9 ipmi://10.0.0.9"


async def test_each_way_that_was_tried_is_evidence_when_there_was_more_than_one(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        job = await site.end(await site.power(True))
        assert "tried" not in job["steps"][0]["evidence"]
        site.bmc.attempts = (
            Attempt(provider="https://a", verb="set_power", seconds=15.0, outcome="no answer"),
            Attempt(provider="ipmi://a", verb="set_power", seconds=0.2, outcome="done"),
        )
        job = await site.end(await site.power(False))
        assert job["steps"][0]["evidence"]["tried"] == [
            "set_power by https://a, 15 s: no answer", "set_power by ipmi://a, 0.2 s: done",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "words"),
    [(f"{WAYS} telnet://h", "must be an"), (f"{WAYS} ", "must be an"),
     ("https://u:p@h ipmi://h", "user name or password"), (f"{WAYS} {WAYS} {WAYS}", "6 addr")],
)  # fmt: skip
def test_each_address_of_a_bmc_must_be_one(url: str, words: str) -> None:
    check_bmc({"url": WAYS})
    with pytest.raises(CodecError, match=words):
        check_bmc({"url": url})


def test_servers_behind_one_bmc_are_known_by_any_of_their_ways() -> None:
    behind = {"url": "https://10.0.0.9/redfish/v1/Systems/2", "secret": "s"}
    assert _same(behind, WAYS, ("s",))
    assert not _same(behind, WAYS, ("t",))
    assert not _same({**behind, "url": "https://10.0.0.8"}, WAYS, ("s",))
