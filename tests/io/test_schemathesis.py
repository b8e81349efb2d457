"""A stranger's client that knows nothing but the OpenAPI document finds no fault."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hub.api.upload import Uploads
from hub.app import make_app
from hub.front import PlainStream, WebSide
from hub.limits import Limits
from mesh.rest.openapi import document
from mesh.rest.operations import Server
from tests.support.bmc_words import give_bmc
from tests.support.hub_bench import API_TOKEN, NODE_A, fill, hub_bench
from tests.support.node_api import node_api

HUB_S, NODE_S = 45, 25
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip
CONFIG = '[checks]\nnegative_data_rejection.expected-statuses = ["4xx"]\n'
"""A query that is too long for a request's head is refused before anybody reads it: 431."""
ENDLESS = "followEvents"


@pytest.mark.slow
async def test_a_client_that_knows_only_the_document_finds_no_fault(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench:
        fill(bench)
        for job in ("j2", "j3"):  # else following their logs has no end
            bench.rows.put(
                "site:fra1", "job", job, kind="server.power", state="succeeded", runner=NODE_A
            )
        give_bmc(bench)
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": [[1, 1, "a line"]] if body["after"] < 1 else []
        }
        await bench.ingest.read_all()
        services = replace(bench.services, limits=Unlimited())
        web = WebSide(make_app(services), Uploads(services))
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        base = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/api/v1"
        async with trio.open_nursery() as nursery, web.running():
            nursery.start_soon(trio.serve_listeners, serve(web), [listener])
            await find_no_fault("hub", base, tmp_path, HUB_S, "--exclude-operation-id", ENDLESS)
            nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_node_answers_such_a_client_as_a_hub_does(tmp_path: Path) -> None:
    async with node_api(tmp_path) as at:
        await at.put_server(1)
        await at.put_server(2, state="available")
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        base = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/api/v1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, at.api.http.serve, [listener])
            await find_no_fault("node", base, tmp_path, NODE_S)
            nursery.cancel_scope.cancel()


class Unlimited(Limits):
    """Counts nobody: what is tested asks far more often than a person may."""

    def wrong_token(self, address: str) -> None:
        del address

    def check_call(self, name: str) -> None:
        del name


def serve(web: WebSide) -> Any:
    async def connection(stream: trio.SocketStream) -> None:
        await web.serve(PlainStream(stream))

    return connection


async def find_no_fault(
    server: Server, base: str, folder: Path, seconds: int, *more: str
) -> None:
    described = folder / "openapi.json"
    described.write_text(json.dumps(document(server, "0.1.0")))
    program = Path(sys.executable).with_name("schemathesis")
    words = [
        program, "--config-file", folder / "schemathesis.toml", "run", described, "--url", base,
        "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", "15",
        "--max-time", str(seconds), *more,
        "-H", f"Authorization: Bearer {API_TOKEN}", "--suppress-health-check", "all",
        "--warnings", "off", "--seed", "1", "--no-color", "--continue-on-failure",
    ]  # fmt: skip
    (folder / "schemathesis.toml").write_text(CONFIG)
    done = await trio.run_process(
        words, capture_stdout=True, stderr=subprocess.STDOUT, check=False, cwd=folder
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said[:20_000]
    assert "No issues found" in said, said[-2000:]
