"""The pages of erased disks: list, record, and the file that is checked without the hub."""

import json
from pathlib import Path

from mesh.proto.erase_record import verify_file
from tests.support.alike import ERASED, ORG
from tests.unit.hub.test_pages import console


async def test_a_record_is_found_read_and_taken_away(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        listed = await browser.text("/erases?filter=serial:D1")
        assert f'href="/erases/{ERASED["id"]}"' in listed
        assert "proved" in listed
        assert "No record passes" in await browser.text("/erases?filter=serial:other")
        odd = await browser.text("/erases?filter=colour:red")
        assert "there is no filter key &#39;colour&#39; here" in odd
        record = await browser.text(f"/erases/{ERASED['id']}")
        assert ERASED["seed"] in record
        assert "rackmesh erase verify" in record
        file = await browser.text(f"/erases/{ERASED['id']}/file")
        assert verify_file(file.encode(), ORG.root_fp).record["disk"]["serial"] == "D1"
        assert json.loads(file)["root"] == ORG.root_fp.hex()


async def test_a_server_leads_to_its_records(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, browser):
        page = await browser.text("/servers/s1")
        assert 'href="/erases?filter=server:s1"' in page
