"""The node's composition root: builds every service, starts them in order, stops in reverse.

Above the marked line only objects are made; below it sockets and files are opened. Rule: an
*essential* service that fails ends the process with its exception; SIGTERM and SIGINT end it
cleanly, and what was acknowledged is on disk.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from cache.api import Cache, rpc_handlers
from mesh.addresses import AddressBook
from mesh.answers import SCHEMA as ANSWERS_SCHEMA
from mesh.answers import Answers
from mesh.courier import Courier
from mesh.detection import Detection
from mesh.errors import Refused
from mesh.holdings import holdings
from mesh.host.build import BUILD
from mesh.host.clock import SteadyClock
from mesh.host.files import make_private_folder, write_file, write_json
from mesh.host.log import get_log
from mesh.host.notify import ServiceManager
from mesh.identity import load_or_make_identity
from mesh.key_rotation import KeyRotation
from mesh.link.peers import LinkLimits, Peers
from mesh.mdns import Mdns, site_tag
from mesh.member_desk import MemberDesk
from mesh.membership import Voice
from mesh.observer import Observer, Who
from mesh.proto.ids import uuid7
from mesh.proto.naming import NameReader
from mesh.proto.order import Order, open_order, sign_order
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.tables import FLEET, NODE, SITE, SUBNET, site_scope
from mesh.register_store import RegisterStore
from mesh.rest.alike import Alike
from mesh.rest.shelf_alike import ShelfAlike
from mesh.secrets import Readable, copy_for, exposed_at_site, make_copies, read_secret
from mesh.site_secret import SiteSecrets
from mesh.store import MeshStore, mark_restored
from mesh.sync import Replication
from mesh.topology import Topology
from node.assets import Assets
from node.boot.files import BootFiles
from node.boot.service import BootConfig, BootServices
from node.boot.sockets import interface_address
from node.bundles import bundle_handlers
from node.clear import ClearServer
from node.config import NodeConfig
from node.consoles import consoles_of
from node.disk import keep_room
from node.erase_api import erase_handlers, work_ports
from node.joining import KEYS, REGISTER, Joined, read_joined
from node.proto.site_view import SiteView
from node.resources import Resources
from node.revalidation import revalidation_of
from node.router import NodeApi, NodeFacts
from node.self_rows import own_addresses, publish, subnet_row
from node.simulated import keep_rack
from node.status import node_status
from node.sweep import Sweeper
from node.uplink import uplink_of
from node.work.boot_desk import BootDesk
from node.work.discs import places_of
from node.work.engine import Work

GRACE_S: Final = 10.0
"""How long services may take to end after a signal."""
log = get_log("node")


class Node:
    """Everything of one running node; made of a configuration and a joined data folder."""

    def __init__(self, config: NodeConfig) -> None:
        data = config.data
        self.config = config
        self.clock = SteadyClock(config.trust_clock)
        self.manager = ServiceManager(os.environ)
        self.joined: Joined = read_joined(data)
        self.identity = load_or_make_identity(data / KEYS, now_ms=self.clock.now_ms())
        self.clock.begin_with_key(self.identity.kem_made_ms)
        if self.identity.node_id != self.joined.node:
            raise Refused(f"the keys in {data / KEYS} are not of node {self.joined.node}")
        self.register = RegisterStore.open(data / REGISTER)
        self.site_view = SiteView(self.identity.node_id, trio.current_time())
        self.store = self._open_store(data)
        self.started_ms = self.clock.now_ms()
        self.cache = Cache.open(data / "cache", config.cache.quota_gib << 30, self.clock)
        self.cache.pay = uplink_of(config.cache, self.clock).pay
        self.secrets = SiteSecrets(self.store, self.register, self.identity)
        self.topology = Topology(self.identity.node_id, self.joined.site, self.register)
        self.replication = Replication(self.store, self.register, place=self.topology)
        self.rpc: dict[str, Any] = {}
        self.streams: dict[str, Any] = {}
        self.book = AddressBook(
            self.identity.node_id,
            self.store,
            self.register,
            self.clock,
            file=data / "addresses.json",
            seeds=config.mesh.peers,
        )
        self.detection = self._make_detection()
        self.peers = Peers(
            self.identity,
            self.register,
            listen=(config.mesh.listen, config.mesh.port),
            hub_link=True,
            services={**self.replication.services(), "detect": self.detection.service},
            rpc=self.rpc,
            streams=self.streams,
            addresses=self.book,
            wanted=self.topology.wanted,
            limits=LinkLimits(config.mesh.relay_bulk, config.mesh.link_mbit),
            clock=self.clock,
            build=BUILD,
            region=self.region,
            renewal=self.replication.renewal,
        )
        self.detection.use_udp(self.peers.udp)
        self.keys = KeyRotation(
            self.identity, self.register, self.store, self.clock, self.peers.renew
        )
        self.observer = self._make_observer()
        self.assets = self._make_assets()
        self.clear = ClearServer(self.cache, lambda node: node in self.site_nodes())
        self.work = self._make_work()
        self.cache.evictable = lambda: self.assets.evictable(self.work.assets_in_use())
        days = config.jobs.archive_days
        self.sweeper = Sweeper(
            self.store, self.joined.site, self.clock, self.alive, self.assets.named, days
        )
        self.desk = BootDesk(self.work, self.is_bound)
        self.files = BootFiles(config.boot.files or data / "boot")
        self.boot = self._make_boot() if config.boot.enabled else None
        self.rpc |= rpc_handlers(self.cache) | self.work.rpc_handlers()
        self.rpc |= self.desk.rpc_handlers() | self.observer.rpc_handlers()
        self.rpc |= self.clear.rpc_handlers()
        self.consoles = consoles_of(self)
        self.streams |= self.consoles.streams()
        self.api = NodeApi(self._facts())
        self.ports: dict[str, int] = {}

    # ------------------------------------------------------------------------------------
    # Above: pure construction (and the locks of the data folder). Below: what they need.

    def _open_store(self, data: Path) -> MeshStore:
        """Open state.db; when it is gone though we have written before, it counts as restored.

        Others still hold what we signed, so we write nothing before we have met a peer.
        """
        root_fp, node = self.register.register.root_fp, self.identity.node_id
        path, written_before = data / "state.db", data / KEYS / "authored"
        if written_before.exists() and not path.exists():
            mark_restored(path, node)
        store = MeshStore.open(
            path,
            author=node,
            sign_head=lambda body: self.identity.sign(HEAD_KIND, HEAD_N, root_fp, body),
            clock=self.clock,
            hub=False,
        )
        if not written_before.exists():
            write_file(written_before, b"")
        return store

    def _make_observer(self) -> Observer:
        site = self.joined.site
        return Observer(
            Who(node=self.identity.node_id, name=self.joined.name, site=site, role="node"),
            register=self.register.register,
            store=self.store,
            peers=self.peers,
            replication=self.replication,
            clock=self.clock,
            gateways=lambda: self.topology.gateways(site),
            unreachable=self.detection.unreachable,
        )

    def _make_detection(self) -> Detection:
        return Detection(
            self.identity.node_id,
            self.register.register.root_fp + self.joined.site.encode(),
            self.register,
            self.site_nodes,
            self.book,
            self.clock,
        )

    def _make_assets(self) -> Assets:
        return Assets(
            node=self.identity.node_id,
            site=self.joined.site,
            cache=self.cache,
            store=self.store,
            peers=self.peers,
            alive=self.alive,
            read_name=NameReader(self.register.register, _name_refused).read,
            site_of=self.site_of,
            site_nodes=self.site_nodes,
            clear=self.config.cache.clear,
        )

    def _make_work(self) -> Work:
        from drivers.api import Dialler

        register, site = self.register.register, self.joined.site
        oob = self.config.interfaces.oob
        dial = Dialler(interface_address(oob) if oob else None)
        return Work(
            node_id=self.identity.node_id,
            site=site,
            store=self.store,
            members=register,
            peers=self.peers,
            receipts=self.replication,
            open_order=lambda data, now_ms: open_order(data, register, now_ms, site=site),
            open_bmc=dial.open,
            look=dial.certificate,
            credentials=self.credentials,
            readable=Readable(self.store, register, self.identity).versions,
            copy_for=partial(copy_for, self.store, register, self.identity),
            make_copies=partial(make_copies, register, site),
            assets=self.assets,
            cache=self.cache,
            secrets=self.secrets,
            clock=self.clock,
            **work_ports(self),
            places=places_of(lambda: self.boot),
        )

    def _make_boot(self) -> BootServices:
        config = self.config.boot
        boot = BootServices(
            BootConfig(
                site=self.joined.site,
                interface=self.config.interfaces.provisioning,
                listen=config.listen,
                dhcp_port=config.dhcp_port,
                tftp_port=config.tftp_port,
                http_port=config.http_port,
                oob=interface_address(oob) if (oob := self.config.interfaces.oob) else None,
            ),
            self.store,
            self.desk,
            self.cache,
            self.files,
            self.clock,
            absent=self.absent,
            near=self.near,
            summoner=self.assets,
        )
        self.rpc |= boot.gossip.rpc_handlers()
        return boot

    def _make_mdns(self) -> Mdns:
        return Mdns(
            self.identity.node_id,
            site_tag(self.register.register.root_fp, self.joined.site),
            port=lambda: self.peers.port,
            hosts=self.own_hosts,
            found=self.book.found,
        )

    def _facts(self) -> NodeFacts:
        self.store.local_schema(ANSWERS_SCHEMA)
        on_disk = ShelfAlike(self.cache, self.store, self.register.register).handlers()
        on_disk |= bundle_handlers(self) | erase_handlers(self)
        return NodeFacts(
            resources=Resources(
                node=self.identity.node_id,
                site=self.joined.site,
                store=self.store,
                register=self.register.register,
                peers=self.peers,
                clock=self.clock,
            ),
            build=BUILD,
            answers=Answers(self.store.write, self.clock),
            status=lambda: node_status(self),
            mesh=self.observer,
            submit=self.submit,
            job_logs=self.work.logs,
            bmcs=self.work.bmcs,
            console=self.consoles.watch,
            reader=self.cache.reader,
            new_id=self.new_id,
            alike=self._make_alike().handlers() | on_disk,
        )

    def _make_alike(self) -> Alike:
        """What this node does about members, its key and its state as a hub does."""
        register, site, node = self.register, self.joined.site, self.identity.node_id
        readable = Readable(self.store, register.register, self.identity).versions
        exposed = partial(exposed_at_site, self.store, readable, site)
        voice = Voice(self.identity.signer, site)
        members = MemberDesk(register, node, voice, lambda: self.store.heads, exposed)
        courier = Courier(self.store, register)
        return Alike(
            node=node, members=members, keys=self.keys, courier=courier,
            holdings=partial(holdings, self.store, register),
        )  # fmt: skip

    def credentials(self, secret_id: str) -> Mapping[str, object]:
        """Return a BMC's login from the secret sealed to this node."""
        data = read_secret(self.store, self.register.register, self.identity, secret_id)
        try:
            login = json.loads(data)
        except ValueError:
            login = None
        if not isinstance(login, dict):
            raise Refused(
                f"the secret {secret_id!r} is no BMC login; set it again with --username"
            )
        return login

    def is_bound(self, mac: str, address: str) -> bool:
        """Whether DHCP gives this address to this machine."""
        return self.boot is not None and self.boot.is_bound(mac, address)

    def new_id(self) -> str:
        """Return a new UUIDv7."""
        return uuid7(self.clock.now_ms(), os.urandom(10))

    async def submit(self, orders: Sequence[Order], also: Callable[[Any], None]) -> None:
        """Sign orders given here and start them, all or none; raises Refused."""
        root_fp = self.register.register.root_fp
        signed = [sign_order(order, self.identity.signer, root_fp) for order in orders]
        await self.work.submit(*signed, also=also)

    def region(self) -> str:
        """Return the region of our site, as hubs say it."""
        row = self.store.get(FLEET, SITE, self.joined.site)
        return str(row.body.get("region", "")) if row is not None else ""

    def site_of(self, node: str) -> str | None:
        """Return the site of an active member ("" for a hub), None for anybody else."""
        member = self.register.register.member(node)
        return member.site if member is not None and member.status == "member" else None

    def site_nodes(self) -> list[str]:
        """Return the active nodes of our site."""
        register = self.register.register
        return [m.node_id for m in register.site_members(self.joined.site) if "node" in m.roles]

    def alive(self) -> list[str]:
        """Return the nodes of our site that count now."""
        linked, now = self.peers.connected(), trio.current_time()
        gone = self.detection.unreachable()
        return self.site_view.alive(self.site_nodes(), linked, gone, now)

    def near(self) -> frozenset[str]:
        """Return the other nodes of our site that have a link with us."""
        return frozenset(self.peers.connected()) & frozenset(self.site_nodes())

    def absent(self) -> frozenset[str]:
        """Return all that ever served our site and to whom no machine shall be sent now."""
        rows = self.store.authored(FLEET, NODE)
        authors = {row.author for row in rows if row.body.get("site") == self.joined.site}
        return frozenset(authors) - frozenset(
            self.site_view.serving(self.alive(), self.peers.connected())
        )

    def listening(self) -> dict[str, Any]:
        """Return what stands in run/ports.json: real ports, address and subnet of boot."""
        subnets = [row.key for row in self.store.rows(site_scope(self.joined.site), SUBNET)]
        return {
            **self.ports,
            "address": self.boot.address if self.boot else None,
            "subnet": self.config.subnet.cidr or min(subnets, default=None),
        }

    def own_hosts(self) -> list[str]:
        """Return the addresses under which peers may find this node now, best first."""
        return own_addresses(self.config.mesh.listen, self.config.mesh.advertise)

    def own_rows(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return our NODE row and the SUBNET row we propose, now that all ports are known."""
        config = self.config
        row: dict[str, Any] = {
            "name": self.joined.name, "site": self.joined.site, "build": BUILD,
            "addresses": [
                [host, self.peers.port, self.peers.udp.port] for host in self.own_hosts()
            ],
            "services": ["cache", "bmc", "jobs"], "started_ms": self.started_ms,
        }  # fmt: skip
        if self.boot is not None:
            row["services"] += ["dhcp", "tftp", "http"]
            row["boot_url"] = self.boot.boot_url
        subnet = None
        if config.subnet.cidr:
            root_fp = self.register.register.root_fp
            subnet = subnet_row(config.subnet, root_fp, self.joined.site)
        return row, subnet

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Start every service in order; return after a signal."""
        run_folder = make_private_folder(self.config.data / "run")
        async with trio.open_nursery() as base:
            await base.start(self.store.run)
            async with trio.open_nursery() as services:
                services.start_soon(self._until_signal, services.cancel_scope)
                services.start_soon(self.manager.run, lambda: node_status(self)["sentence"])
                await services.start(self.replication.run)
                await services.start(self.book.run, self.peers)
                await services.start(self.keys.run)
                await services.start(self.detection.run)
                await services.start(self.peers.run)
                await services.start(self.topology.run, self.peers, self.detection)
                await self._until_writable()
                await services.start(self.secrets.run)
                if self.config.cache.clear:
                    await services.start(self.clear.run, self.config.mesh.listen)
                await services.start(self.assets.run)
                services.start_soon(keep_room, self.cache)
                await services.start(self.observer.run)
                self.ports = {"mesh": self.peers.port, "mesh_udp": self.peers.udp.port}
                if self.config.mesh.mdns:
                    services.start_soon(self._make_mdns().run)
                if self.boot is not None:
                    self.ports |= await services.start(self.boot.run)
                    services.start_soon(self.boot.gossip.run, self.peers.rpc)
                whose = (self.store, self.identity.node_id, self.joined.site)
                await services.start(publish, *whose, self.own_rows)
                await services.start(self.work.run)
                await services.start(self.consoles.run)
                services.start_soon(self.sweeper.run)
                services.start_soon(revalidation_of(self).run)
                await services.start(self.api.run, run_folder / "api.sock")
                await services.start(self._keep_ports_file, run_folder / "ports.json")
                log.info("node runs", node=self.identity.node_id, site=self.joined.site)
                self.manager.ready()
                ready()
                if self.config.simulate_rack:
                    services.start_soon(keep_rack, self.config.simulate_rack, self.config.data)
            base.cancel_scope.cancel()
        self.cache.close()
        self.store.close()
        log.info("node stopped", node=self.identity.node_id)

    async def _until_signal(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                self.manager.stopping()
                log.info("stopping", signal=signal.Signals(number).name)
                scope.cancel()
                return

    async def _until_writable(self) -> None:
        """After a restore, wait until a peer was met, or go on when the operator says so."""
        if self.store.awaits_peer and self.config.force_epoch:
            log.warning("state lost, going on because --force-epoch was given")
            await self.store.admit_writes()
        if self.store.awaits_peer:
            log.warning(
                "state lost or restored, waiting for a peer",
                detail="a hub or another node of the site must be reachable; --force-epoch"
                " goes on without, if no other member is left",
            )
            self.manager.ready()  # this may take days: nobody should start us again
        while self.store.awaits_peer:
            await self.store.wait_past(self.store.version)

    async def _keep_ports_file(
        self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write what we listen on, again when the site's subnet becomes known."""
        written: dict[str, Any] = {}
        while True:
            version, facts = self.store.version, self.listening()
            if facts != written:
                try:
                    write_json(path, facts, 0o644)
                    written = facts
                except OSError as exc:  # a full disk; the next change of the store tries again
                    log.warning("ports not written", path=path, error=exc.strerror)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self.store.wait_past(version)


def _name_refused(name: str, reason: str) -> None:
    log.warning("name refused", name=name, error=reason)


async def run_node(config: NodeConfig) -> None:
    """Run a node until it is told to stop; raises MeshError with one sentence."""
    await Node(config).run()
