"""How machines become servers: accept one that was seen, adopt one that runs, promote it.

Rule: a server that is adopted is only monitored; nothing here can power, boot or wipe it.
"""

from typing import Any

import click

from mesh.cli.context import Command, Where, options
from mesh.cli.errors import Failure
from mesh.cli.orders import one, repeatable, waiting
from mesh.cli.servers import hit, many


def described(function: Command) -> Command:
    """Give what accept and adopt say of a server beside its name."""
    decorators = [
        click.option("--tag", "tags", multiple=True, help="A word to find it by; may repeat."),
        click.option("--ip", help="Its fixed address on the provisioning network."),
        click.option("--site", help="Its site, where that does not follow from what was seen."),
        click.option(
            "--inspect", type=click.Choice(["oob"]),
            help="oob: read from its BMC what it is made of; it is not booted.",
        ),
        click.option(
            "--boot-by", type=click.Choice(["network", "media"]), default="network",
            show_default=True,
            help="How it gets the ramdisk: by DHCP and TFTP, or a disc in the virtual drive.",
        ),
        click.option(
            "--bmc-secret", help="Id of the secret with the BMC's user name and password."
        ),
        click.option(
            "--bmc",
            help="Its BMC: Redfish URL of the ComputerSystem, or ipmi://HOST[:PORT]; several"
            " with blanks between them are ways to the same BMC, tried in order.",
        ),
    ]  # fmt: skip
    for decorate in decorators:
        function = decorate(function)
    return function


def _params(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Take what ``described`` gave out of the options and return an order's parameters."""
    bmc, secret, inspect = (given.pop(key) for key in ("bmc", "bmc_secret", "inspect"))
    boot_by = given.pop("boot_by")
    if boot_by == "media" and not bmc:
        raise Failure("--boot-by media needs --bmc URL: the virtual drive is the BMC's", 2)
    if secret and not bmc:
        raise Failure("--bmc-secret needs --bmc URL", 2)
    if inspect and not (bmc and secret):
        raise Failure("--inspect oob needs --bmc URL and --bmc-secret ID", 2)
    found: dict[str, Any] = {
        "name": name, "bmc": {"url": bmc, "secret": secret} if bmc else None,
    }  # fmt: skip
    if boot_by == "media":
        found["bmc"]["boot_by"] = boot_by
    more = {"inspect": inspect, "ip": given.pop("ip"), "tags": list(given.pop("tags"))}
    return found | {key: value for key, value in more.items() if value}


@click.command("accept")
@click.argument("machine")
@click.argument("name", required=False)
@click.option("--rotate-password", is_flag=True,
              help="Give the BMC a random password that the site alone knows, now and at each"
              " release; --bmc-secret is the one that holds now.")  # fmt: skip
@described
@waiting
@repeatable
@options
def accept(
    where: Where, as_json: bool, machine: str, name: str | None, rotate_password: bool,
    site: str | None, **more: Any,
) -> None:  # fmt: skip
    """Make the pending MACHINE (its MAC) a server called NAME. Writes no disk.

    With --inspect oob the NAME alone is enough: the BMC tells the MACs, so the server is known
    before its first boot.
    """
    if name is None:
        if not more["inspect"]:
            raise Failure("give MACHINE and NAME, or NAME with --bmc and --inspect oob", 2)
        machine, name = "", machine
    if rotate_password and not more["bmc_secret"]:
        raise Failure("--rotate-password needs --bmc URL and --bmc-secret ID", 2)
    params = _params(name, more)
    if rotate_password:
        params["bmc"]["rotate"] = True
    about: dict[str, Any] = {"machine": machine} if machine else {}
    if site:
        about["site"] = site
    one(where, as_json, more, kind="server.accept", params=params, **about)


@click.command("adopt")
@click.argument("name")
@click.option("--mac", "macs", multiple=True, help="MAC of an interface; may repeat.")
@click.option("--serial", help="Its serial number.")
@click.option("--monitored", is_flag=True,
              help="Say that it is only monitored; there is no other way yet.")  # fmt: skip
@described
@waiting
@repeatable
@options
def adopt(
    where: Where, as_json: bool, name: str, macs: tuple[str, ...], serial: str | None,
    monitored: bool, site: str | None, **more: Any,
) -> None:  # fmt: skip
    """Know the running server NAME without ever touching it.

    It is never powered, booted or wiped: DHCP gives it an address at most. Promote it to have
    it managed.
    """
    if not monitored:
        raise Failure("say --monitored: an adopted server is never touched", 2)
    params = _params(name, more) | {"macs": list(macs)}
    if serial:
        params["serial"] = serial
    about = {"site": site} if site else {}
    one(where, as_json, more, kind="server.adopt", params=params, **about)


@click.command("boot-by")
@many
@click.argument("way", type=click.Choice(["network", "media"]))
@waiting
@repeatable
@options
def boot_by(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    way: str, **more: Any,
) -> None:  # fmt: skip
    """Say how each SERVER gets its ramdisk: by DHCP and TFTP, or by a disc from its BMC.

    It counts from the next deploy or release on.
    """
    what = f"these will boot by {way} from now on:"
    hit(where, as_json, more, servers, text, yes, "server.boot-by", {"by": way}, what)


@click.command("promote")
@many
@waiting
@repeatable
@options
def promote(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    **more: Any,
) -> None:  # fmt: skip
    """Manage each monitored SERVER from now on; it goes on as it runs.

    Nothing of it is touched; it can be powered from then on, and is wiped when it is released.
    """
    what = "these will be managed from now on:"
    hit(where, as_json, more, servers, text, yes, "server.promote", {}, what)
