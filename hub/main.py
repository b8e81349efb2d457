"""The hub's composition root: builds everything, starts it in order, stops it in reverse.

Above the marked line only objects are made; below it the machine is touched. Rule: the store
starts first and stops last; nobody is let in before everything behind the doors runs.
"""

import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from hub import founding
from hub.api.upload import Uploads
from hub.app import make_app
from hub.assets import AssetDesk, AssetParts
from hub.backup import BackupDesk
from hub.config import HubConfig
from hub.consoles import ConsoleDesk
from hub.contacts import Contacts
from hub.desks import SecretDesk, TokenDesk, VerdictDesk
from hub.exports import Exports
from hub.front import Front, WebSide, listen_tcp
from hub.greeting import Greeting, greet
from hub.hooks import HookDesk
from hub.ingest import Ingest, MeshRows, order_reader
from hub.limits import Limits
from hub.live import EventBus, Live
from hub.orders import OrderDesk
from hub.ports import Services
from hub.restored import REPORT_FILE, RestoreDesk
from hub.status import StatusDesk
from hub.templates import TemplateDesk
from hub.trust_desk import TrustDesk
from mesh.answers import Answers
from mesh.courier import Courier
from mesh.errors import StoreFull
from mesh.holdings import holdings
from mesh.host.build import BUILD
from mesh.host.clock import SteadyClock
from mesh.host.local_socket import listen_local
from mesh.host.log import get_log
from mesh.host.notify import ServiceManager
from mesh.join_desk import JoinDesk
from mesh.key_rotation import KeyRotation
from mesh.link.join import JoinService
from mesh.link.peers import LinkLimits, Peers
from mesh.link.ws import serve_websocket
from mesh.member_desk import MemberDesk
from mesh.membership import Voice, speak_for_self
from mesh.observer import Observer, Who
from mesh.proto import tables
from mesh.proto.register import Register
from mesh.rest.alike import Alike
from mesh.rest.bundle_alike import seal_handlers
from mesh.rest.erase_alike import EraseAlike
from mesh.rest.shelf_alike import ShelfAlike
from mesh.secrets import exposed_secrets
from mesh.store import Tx
from mesh.sync import Replication
from mesh.topology import Topology

log = get_log("hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The services of a running hub."""

    replication: Replication
    keys: KeyRotation
    topology: Topology
    peers: Peers
    ingest: Ingest
    live: Live
    contacts: Contacts
    assets: AssetDesk
    tokens: TokenDesk
    restored: RestoreDesk
    secrets: SecretDesk
    trust: TrustDesk
    front: Front
    status: StatusDesk
    observer: Observer


def compose(ground: founding.Ground) -> Parts:
    """Build the hub over what was opened; touches nothing."""
    store, register, clock = ground.store, ground.register, ground.clock
    own, node_id, build = ground.identity, ground.identity.node_id, BUILD
    bus, topology = EventBus(f"{clock.now_ms():x}"), Topology(node_id, "", register)
    replication = Replication(store, register, place=topology)
    assets = AssetDesk(
        AssetParts(
            store=store, cache=ground.cache, register=register.register, key=ground.keys.assets,
            bus=bus, clock=clock, node_id=node_id,
        )
    )  # fmt: skip
    rpc = assets.rpc_handlers()
    peers = _peers(ground, replication, rpc)
    contacts = Contacts(register.register, peers)
    observer = _observer(ground, peers, replication)
    rpc |= contacts.handlers() | observer.rpc_handlers()
    reports, reader = ground.reports, order_reader(register.register)
    live = Live(peers, reports, bus, clock, contacts)
    join_desk = JoinDesk(store, register, ground.keys, own, clock)
    join_desk.on_change = lambda token_id: bus.publish("token", id=token_id)
    tokens = TokenDesk(join_desk, store, clock, ground.keys.region)
    orders = OrderDesk(
        store=store, reports=reports, register=register.register, region=ground.keys.region,
        key=ground.keys.orders, clock=clock, hub=ground.config.name,
    )  # fmt: skip
    exports = Exports(store, assets, register.register, ground.cache, peers)
    restored = RestoreDesk(
        path=ground.config.data / REPORT_FILE, store=store, replication=replication,
        register=register.register, reports=reports, read_order=reader, clock=clock,
        force=ground.config.force_epoch,
    )  # fmt: skip
    backups = BackupDesk(
        data=ground.config.data, keys=ground.keys, node_id=node_id, name=ground.config.name,
        build=build, reports=reports, clock=clock,
    )  # fmt: skip
    trust = TrustDesk(store=store, register=register, keys=ground.keys, identity=own)
    status = StatusDesk(
        node_id=node_id, name=ground.config.name, build=build, started_ms=clock.now_ms(),
        keys=ground.keys, register=register.register, reports=reports, peers=peers, live=live,
        assets=assets, clock=clock, room=store.room, restored=restored, trust=trust,
    )  # fmt: skip
    ingest = Ingest(MeshRows(store), register, reports, bus, clock, reader)
    secrets = SecretDesk(store, register.register)
    alike = _make_alike(ground, peers)
    on_disk = ShelfAlike(ground.cache, store, register.register).handlers()
    on_disk |= seal_handlers(own.signer, register.register.root_fp, clock)
    services = Services(
        store=reports, live=live, bus=bus, desk=ground.desk, clock=clock, orders=orders,
        tokens=tokens, verdicts=VerdictDesk(store, reports), hooks=HookDesk(store),
        secrets=secrets, assets=assets, templates=TemplateDesk(store, reports, clock),
        answers=Answers(store.write, clock), status=status, settle=ingest.settle,
        exports=exports, backups=backups, restored=restored, trust=trust, mesh=observer,
        alike=alike.handlers() | on_disk | _erases(ground), node_id=node_id, build=build,
        consoles=_console_desk(peers, register.register), region=ground.keys.region,
        not_ready=lambda: store.not_ready or trust.read_only(), hub_name=ground.config.name,
        accounts=ground.accounts, api_tokens=ground.api_tokens, limits=Limits(),
    )  # fmt: skip
    joins = JoinService(join_desk, lambda: own.kem_private)

    async def mesh_door(stream: Any) -> None:
        await serve_websocket(stream, peers, joins)

    web = WebSide(make_app(services), Uploads(services))
    return Parts(
        replication=replication, keys=alike.keys, peers=peers, ingest=ingest, live=live,
        contacts=contacts, assets=assets, tokens=tokens, restored=restored, secrets=secrets,
        trust=trust, front=Front(web, ground.tls, mesh_door), status=status, topology=topology,
        observer=observer,
    )  # fmt: skip


def _peers(ground: founding.Ground, replication: Replication, rpc: dict[str, Any]) -> Peers:
    return Peers(
        ground.identity, ground.register, listen=None, hub_link=True, rpc=rpc,
        listen_udp=(ground.config.listen, ground.port),
        limits=LinkLimits(ground.config.relay_bulk, ground.config.link_mbit),
        services=replication.services(), addresses=dict, clock=ground.clock, build=BUILD,
        renewal=replication.renewal,
    )  # fmt: skip


def _observer(ground: founding.Ground, peers: Peers, replication: Replication) -> Observer:
    who = Who(node=ground.identity.node_id, name=ground.config.name, site="", role="hub")
    return Observer(
        who, register=ground.register.register, store=ground.store, peers=peers,
        replication=replication, clock=ground.clock,
    )  # fmt: skip


def _erases(ground: founding.Ground) -> dict[str, Any]:
    """Return what this hub says about erases, of every site that there is or was."""
    store, register = ground.store, ground.register.register

    def sites() -> list[str]:
        members = {member.site for member in register.members()}
        named = {row.key for row in store.rows(tables.FLEET, tables.SITE)}
        return sorted((named | members) - {""})

    return EraseAlike(store, register, sites).handlers()


def _console_desk(peers: Peers, register: Register) -> ConsoleDesk:
    def nodes(site: str) -> list[str]:
        return [m.node_id for m in register.site_members(site) if "node" in m.roles]

    return ConsoleDesk(peers, nodes)


def _make_alike(ground: founding.Ground, peers: Peers) -> Alike:
    """What this hub does about members, its key and its state as a node does."""
    store, register, own = ground.store, ground.register, ground.identity
    members = MemberDesk(
        register, own.node_id, Voice(ground.keys.membership), lambda: store.heads,
        partial(exposed_secrets, store),
    )  # fmt: skip
    keys = KeyRotation(own, register, store, ground.clock, peers.renew)
    courier = Courier(store, register)
    return Alike(
        node=own.node_id, members=members, keys=keys, courier=courier,
        holdings=partial(holdings, store, register),
    )  # fmt: skip


# ---- above: objects only ---- below: sockets, files, signals, tasks --------------------------


async def run_hub(config: HubConfig, passphrase: str | None = None) -> None:
    """Run a hub until SIGTERM or SIGINT. Raises Refused with one sentence, StoreBroken.

    ``passphrase`` wraps the root key that a first start makes.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        lock = founding.lock_folder(config.data)
        try:
            founding.remove_run_files(config.data)  # what a killed hub left says that it runs
            port = await listen_tcp(config.listen, config.port)
            async with port:
                number = int(port.socket.getsockname()[1])
                clock = SteadyClock(config.trust_clock)
                ground = founding.open_ground(config, number, clock, passphrase)
                try:
                    async with await listen_local(config.data / "run" / "api.sock") as local:
                        await _run(ground, port, local, number, signals)
                finally:
                    founding.remove_run_files(config.data)
                    ground.close()
        finally:
            lock.release()


async def _run(
    ground: founding.Ground,
    port: trio.SocketListener,
    local: trio.SocketListener,
    number: int,
    signals: Any,
) -> None:
    """Start in order, wait for a signal, stop in reverse; a failing service ends all."""
    parts = compose(ground)
    async with trio.open_nursery() as base:
        await base.start(ground.store.run)
        async with trio.open_nursery() as mesh:
            await mesh.start(parts.replication.run)
            await mesh.start(parts.keys.run)
            await mesh.start(parts.peers.run)
            await mesh.start(parts.topology.run, parts.peers)
            async with trio.open_nursery() as views:
                await views.start(parts.ingest.run)
                await views.start(parts.assets.run)
                views.start_soon(parts.live.run)
                views.start_soon(_keep_own_record, ground)
                views.start_soon(parts.contacts.run)
                await views.start(parts.observer.run)
                views.start_soon(parts.restored.run)
                views.start_soon(parts.secrets.run)
                greeting = await _first_words(ground, parts)
                if ground.store.awaits_peer:
                    views.start_soon(_when_writable, ground, parts.trust)
                async with trio.open_nursery() as doors:
                    await doors.start(parts.front.serve, port, local)
                    greet(greeting, sys.stdout)
                    founding.write_ports(ground.config.data, number, parts.peers.udp.port)
                    log.info("hub is up", port=number, node=ground.identity.node_id)
                    manager = ServiceManager(os.environ)
                    views.start_soon(manager.run, lambda: parts.status.status()["sentence"])
                    manager.ready()
                    log.info("stopping", signal=int(await anext(signals)))
                    manager.stopping()
                    parts.front.stop()
                views.cancel_scope.cancel()
            mesh.cancel_scope.cancel()
        base.cancel_scope.cancel()
    log.info("stopped")


async def _keep_own_record(ground: founding.Ground) -> None:
    """Sign our own roster record anew when the key that signed it becomes void."""
    voice, register = Voice(ground.keys.membership), ground.register
    while True:
        version = register.version
        try:
            speak_for_self(voice, register, ground.identity.node_id)
        except StoreFull:
            pass  # it holds for this process and is written when there is room
        await register.wait_past(version)


async def _describe(ground: founding.Ground, trust: TrustDesk) -> None:
    """Write this hub's own NODE row, and its role keys for other hubs."""
    body = {
        "name": ground.config.name,
        "site": "",
        "build": BUILD,
        "addresses": [],
        "services": ["console", "api", "cache"],
        "started_ms": ground.clock.now_ms(),
    }

    def write(tx: Tx) -> None:
        tx.put(tables.FLEET, tables.NODE, ground.identity.node_id, body)
        trust.write_own(tx)

    try:
        await ground.store.write(write)
    except StoreFull:
        log.warning("own row not written", path=ground.config.data)


async def _when_writable(ground: founding.Ground, trust: TrustDesk) -> None:
    """Do what a start does, as soon as a restored hub may write."""
    while ground.store.awaits_peer:
        await ground.store.wait_past(ground.store.version)
    await _describe(ground, trust)
    await founding.make_admin(ground, on_terminal=False)


async def _first_words(ground: founding.Ground, parts: Parts) -> Greeting:
    """Make the first account and token; return what people must see."""
    on_terminal = sys.stdout.isatty()
    password: str | None = None
    if not ground.store.awaits_peer:
        await _describe(ground, parts.trust)
        password = await founding.make_admin(ground, on_terminal)
    token: str | None = None
    site = ground.config.site
    may_admit = ground.keys.founded and not ground.store.awaits_peer
    if ground.first and site is not None and may_admit:
        _, token = await parts.tokens.create(site, ["node", "site-operator"], 24 * 3600)
    return Greeting(
        data=ground.config.data,
        name=ground.config.name,
        urls=ground.urls,
        fingerprint=ground.tls.fingerprint,
        root_fingerprint=ground.keys.root_fp.hex(),
        password=password,
        token=token,
        site=site,
        on_terminal=on_terminal,
        first=ground.first,
    )
