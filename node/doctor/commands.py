"""``rackmesh node doctor`` and ``rackmesh node doctor listen``: words in, findings out.

Rule: configuration is read as ``node run`` reads it, so the doctor looks at what would run.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import print_json, read_secret_file
from mesh.cli.errors import DEGRADED, Failure, failure_of
from mesh.errors import MeshError, Refused
from mesh.host.config import default_data, load
from node.config import NodeConfig

MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "unknown": "?"}


@click.group("doctor", invoke_without_command=True)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of the node.")
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)
@click.option("--interface", help="Interface that machines boot from.")
@click.option("--oob", help="Interface that BMCs are reached by.")
@click.option("--hub", "hubs", multiple=True, help="Hub to ask, https://HOST:8443; may repeat.")
@click.option(
    "--token-file", type=click.Path(path_type=Path, allow_dash=True),
    help="Join token whose hubs to ask; it is not used up.",
)  # fmt: skip
@click.option(
    "--far", multiple=True, metavar="HOST:PORT/KIND",
    help="Port of `doctor listen` on the far side; KIND is tls, tcp or udp; may repeat.",
)  # fmt: skip
@click.option("--far-sha256", help="Fingerprint that `doctor listen` printed.")
@click.option("--no-probe", is_flag=True, help="Do not ask for other DHCP servers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor(context: click.Context, /, as_json: bool, **words: Any) -> None:
    """Check this machine: what a node needs, and the command that mends what is wrong.

    Exit code 3 when something fails. It changes nothing, before a node runs or beside it.
    """
    if context.invoked_subcommand is not None:
        return
    import trio

    from node.doctor.examine import examine

    try:
        plan = _plan(words)
    except MeshError as exc:
        raise Failure(str(exc), 2) from exc
    findings = trio.run(examine, plan)
    failed = sum(finding.state == "fail" for finding in findings)
    if as_json:
        rows = [
            {"check": f.check, "state": f.state, "says": f.says, "mend": f.mend}
            for f in findings
        ]
        item = {"healthy": not failed, "findings": rows}
        print_json({"schema": "rackmesh/doctor/1", "item": item})
    else:
        for finding in findings:
            click.echo(f"{MARKS[finding.state]:<5} {finding.check}: {finding.says}")
            if finding.mend and finding.state != "ok":
                click.echo(f"      mend: {finding.mend}")
    if failed:
        raise Failure(f"{failed} of {len(findings)} checks fail", DEGRADED)


def _plan(words: dict[str, Any]) -> Any:
    from node.doctor.examine import Plan
    from node.doctor.far import parse_target

    data = words["data"] or default_data("node", os.environ)
    interfaces = {"provisioning": words["interface"], "oob": words["oob"]}
    flags = {"data": data, "interfaces": interfaces}
    config = load(NodeConfig, words["config"], os.environ, flags)
    running, nodes = _running(config.data)
    return Plan(
        config=config, running=running, nodes=nodes, probe=not words["no_probe"],
        far=[parse_target(text) for text in words["far"]],
        fingerprint=_fingerprint(words["far_sha256"]),
        hubs=_hubs(words["hubs"], words["token_file"], config.data),
    )  # fmt: skip


def _fingerprint(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Refused(f"{text[:80]!r} is no SHA-256 fingerprint: 64 hex digits are wanted")
    return found


def _hubs(named: tuple[str, ...], token_file: Path | None, data: Path) -> list[str]:
    """Return the hubs to ask: named ones, the token's, those that this node knows."""
    for url in named:
        if not url.startswith("https://"):
            raise Refused(f"--hub wants https://HOST:PORT, not {url[:80]!r}")
    found = list(named)
    if token_file is not None:
        from mesh.host.clock import SystemClock
        from mesh.proto.token import parse_token

        found += parse_token(read_secret_file(token_file), SystemClock().now_ms()).urls
    register = data / "register"
    if register.exists():
        from mesh.register_store import read_register

        try:
            hubs = read_register(register).hubs()
        except OSError as exc:
            raise Refused(f"{register} cannot be read: {exc.strerror}") from exc
        found += [url for hub in hubs for url in hub.urls[:1]]
    return list(dict.fromkeys(found))


def _running(data: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the ports of the node that runs on this data folder, and its site's addresses."""
    from urllib.parse import urlsplit

    from mesh.rest.client import ApiClient, ApiError, Target

    socket = data / "run" / "api.sock"
    if not socket.exists():
        return {}, []
    client = ApiClient(Target(socket=socket))
    try:
        urls = [node["boot_url"] for node in client.get("/nodes")["items"]]
        ports = json.loads((data / "run" / "ports.json").read_text())
    except (ApiError, OSError, ValueError):
        return {}, []
    finally:
        client.close()
    return ports, [urlsplit(url).hostname or "" for url in urls if url]


@doctor.command("listen")
@click.option("--listen", "address", default="0.0.0.0", show_default=True,  # noqa: S104
              help="Address to listen on.")  # fmt: skip
@click.option("--tls-port", default=8443, show_default=True, help="A hub's port; -1: none.")
@click.option("--tcp-port", default=4770, show_default=True, help="A node's port; -1: none.")
@click.option("--udp-port", default=4770, show_default=True, help="A node's port; -1: none.")
@click.option("--seconds", type=float, help="End after so long; default: until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def listen(
    address: str, tls_port: int, tcp_port: int, udp_port: int, seconds: float | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Stand where a hub or peer will, so that the doctor on the other side can try the way."""
    import trio

    ports = {"tls": tls_port, "tcp": tcp_port, "udp": udp_port}
    wrong = [port for port in ports.values() if not -1 <= port < 65536]
    if wrong:
        raise Failure(f"a port is 0 to 65535, or -1 for none; not {wrong[0]}", 2)
    try:
        trio.run(_listen, address, ports, seconds, as_json)
    except KeyboardInterrupt:
        return
    except (OSError, ExceptionGroup) as exc:
        raise failure_of(exc, "listener", {}) from exc


async def _listen(
    address: str, ports: dict[str, int], seconds: float | None, as_json: bool
) -> None:
    import hashlib

    import trio
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from node.doctor.far import Listener

    def tell(carrier: str, port: int, peer: str) -> None:
        if as_json:
            click.echo(json.dumps({"carrier": carrier, "port": port, "peer": peer}))
        else:
            click.echo(f"{carrier} {port}: {peer} got through")
        sys.stdout.flush()

    listener = Listener(tell)
    certificate = x509.load_pem_x509_certificate(listener.certificate)
    shown = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    wanted: Any = {carrier: port for carrier, port in ports.items() if port >= 0}
    async with trio.open_nursery() as nursery:
        real = await nursery.start(listener.run, address, wanted)
        if as_json:
            click.echo(json.dumps({"listening": real, "tls_sha256": shown}))
        else:
            words = " ".join(f"--far HOST:{port}/{kind}" for kind, port in real.items())
            click.echo(f"listening; on the other side: rackmesh node doctor {words} \\")
            click.echo(f"    --far-sha256 {shown}")
        sys.stdout.flush()
        if seconds is not None:
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
