"""A stranger's client that knows nothing but the OpenAPI document finds no fault."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from hub.api.upload import Uploads
from hub.app import make_app
from hub.front import PlainStream, WebSide
from hub.limits import Limits
from mesh.rest.openapi import document
from tests.support.hub_bench import API_TOKEN, NODE_A, fill, hub_bench

SECONDS = 60
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip
ENDLESS = "followEvents"


async def test_a_client_that_knows_only_the_document_finds_no_fault(tmp_path: Path) -> None:
    async with hub_bench(tmp_path) as bench:
        fill(bench)
        for job in ("j2", "j3"):  # else following their logs has no end
            bench.rows.put(
                "site:fra1", "job", job, kind="server.power", state="succeeded", runner=NODE_A
            )
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": [[1, 1, "a line"]] if body["after"] < 1 else []
        }
        await bench.ingest.read_all()
        services = replace(bench.services, limits=Unlimited())
        web = WebSide(make_app(services), Uploads(services))
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        base = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/api/v1"
        described = tmp_path / "openapi.json"
        described.write_text(json.dumps(document("hub", "0.1.0")))
        async with trio.open_nursery() as nursery, web.running():
            nursery.start_soon(trio.serve_listeners, serve(web), [listener])
            done = await run_schemathesis(described, base, tmp_path)
            nursery.cancel_scope.cancel()
    assert done.returncode == 0, done.stdout.decode()[-20_000:]
    assert b"No issues found" in done.stdout, done.stdout.decode()[-2000:]


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


async def run_schemathesis(described: Path, base: str, folder: Path) -> Any:
    program = Path(sys.executable).with_name("schemathesis")
    words = [
        program, "--config-file", folder / "schemathesis.toml", "run", described, "--url", base,
        "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", "15",
        "--max-time", str(SECONDS), "--exclude-operation-id", ENDLESS,
        "-H", f"Authorization: Bearer {API_TOKEN}", "--suppress-health-check", "all",
        "--warnings", "off", "--seed", "1", "--no-color", "--continue-on-failure",
    ]  # fmt: skip
    (folder / "schemathesis.toml").write_text("")
    return await trio.run_process(
        words, capture_stdout=True, stderr=subprocess.STDOUT, check=False, cwd=folder
    )
