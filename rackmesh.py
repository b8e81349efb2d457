"""The front door: reads the first words and imports one role.

It knows the names of all commands and nothing of what they do. Rule: a command's module is
imported only when that command runs, so ``rackmesh version`` loads no daemon code.
"""

import sys
from typing import Any

import click

from mesh.cli.lazy import LazyGroup

INTERRUPTED = 130
_NOUNS, _VERBS, _ASSETS = "mesh.cli.nouns", "mesh.cli.verbs", "mesh.cli.assets"
_JOBS = "mesh.cli.jobs"
_SHELF, _BUNDLE = "mesh.cli.shelf", "node.bundle_commands"
_TEMPLATES = "mesh.cli.templates"
_ERASES = "mesh.cli.erases"
_HOOKS = "mesh.cli.hooks"
_PEOPLE, _SERVERS, _GROUPS = "mesh.cli.accounts", "mesh.cli.servers", "mesh.cli.groups"
_UPKEEP, _ROOT = "hub.upkeep_commands", "hub.root_commands"
_MEMBERS, _MESH = "mesh.cli.members", "mesh.cli.mesh"

TABLE: dict[str, Any] = {
    "status": (f"{_NOUNS}:status", "Say how the hub or node fares."),
    "hub": (
        {
            "up": ("hub.commands:up", "Run a hub; the first start makes everything."),
            "join": ("hub.commands:join", "Join an organisation as one more hub."),
            "list": (f"{_ROOT}:hub_list", "List the hubs and what their keys are worth."),
            "backup": (f"{_UPKEEP}:backup", "Write one sealed file of a running hub."),
            "restore": (f"{_UPKEEP}:restore", "Make a data folder of a backup."),
            "restore-report": (
                f"{_UPKEEP}:restore_report",
                "Show what a restore gave back.",
            ),
            "root": (
                {
                    "admit": (f"{_ROOT}:root_admit", "Name the keys of a hub that joined."),
                    "void": (f"{_ROOT}:root_void", "Take keys back, of a hub that is gone."),
                    "delegate": (
                        f"{_ROOT}:root_delegate",
                        "Let a node end others of its site.",
                    ),
                    "export": ("hub.commands:root_export", "Move the root key off this hub."),
                },
                "The organisation's root key.",
            ),
        },
        "The hub.",
    ),
    "node": (
        {
            "join": ("node.commands:join", "Join a mesh with a token."),
            "run": ("node.commands:run", "Run this node."),
            "doctor": ("node.doctor.commands:doctor", "Check this machine before or after."),
            "list": (f"{_NOUNS}:node_list", "List the members of the mesh."),
            "revoke": (f"{_MEMBERS}:node_revoke", "End a member for good."),
            "suspend": (f"{_MEMBERS}:node_suspend", "Keep a member out for a time."),
            "resume": (f"{_MEMBERS}:node_resume", "Let a suspended member in again."),
            "relay": (f"{_MEMBERS}:node_relay", "Let a member relay links of others."),
            "rotate-key": (f"{_MEMBERS}:rotate_key", "Replace this node's X25519 key."),
        },
        "Nodes.",
    ),
    "mesh": (
        {
            "status": (f"{_MESH}:mesh_status", "Say how the mesh looks from here."),
            "peers": (f"{_MESH}:mesh_peers", "List the links of this hub or node."),
            "topology": (f"{_MESH}:mesh_topology", "Show who has links with whom."),
            "lag": (f"{_MESH}:mesh_lag", "Show how fresh what is known is."),
        },
        "The mesh of members.",
    ),
    "rack": (
        {"simulate": ("node.rack.commands:simulate", "Run servers without hardware.")},
        "The simulated rack.",
    ),
    "site": ({"list": (f"{_NOUNS}:site_list", "List the sites.")}, "Sites."),
    "server": (
        {
            "pending": (f"{_NOUNS}:server_pending", "List machines that wait to be accepted."),
            "accept": ("mesh.cli.enrol:accept", "Make a pending machine a server."),
            "adopt": ("mesh.cli.enrol:adopt", "Know a running server, never touch it."),
            "import": ("mesh.cli.imports:server_import", "Make servers of a file."),
            "promote": ("mesh.cli.enrol:promote", "Manage a monitored server."),
            "boot-by": ("mesh.cli.enrol:boot_by", "Boot servers by network or by media."),
            "reject": (f"{_SERVERS}:reject", "Put a pending machine aside."),
            "restore": (f"{_SERVERS}:restore", "Take back that it was put aside."),
            "list": (f"{_NOUNS}:server_list", "List servers."),
            "show": (f"{_NOUNS}:server_show", "Show one server."),
            "inventory": (f"{_SERVERS}:inventory", "Show what one server is made of."),
            "sensors": ("mesh.cli.bmc:sensors", "Read a server's sensors through its BMC."),
            "events": ("mesh.cli.bmc:events", "Read the event log of a server's BMC."),
            "firmware": ("mesh.cli.bmc:firmware", "Show versions of a server's firmware."),
            "bios": (
                {"show": ("mesh.cli.bmc:bios_show", "Show the settings, and what waits.")},
                "Settings of a server's firmware, through its BMC.",
            ),
            "deploy": (f"{_SERVERS}:deploy", "Install an image on one or many."),
            "release": (f"{_SERVERS}:release", "Wipe the disks and make them available."),
            "power": (f"{_SERVERS}:power", "Switch one or many on or off."),
            "console": ("mesh.cli.console:console", "Watch and use the serial console."),
            "password": (f"{_SERVERS}:password", "Give BMCs a new password."),
        },
        "Servers.",
    ),
    "bmc": (
        {
            "scan": ("mesh.cli.bmcs:bmc_scan", "Look for BMCs in networks of a site."),
            "list": ("mesh.cli.bmcs:bmc_list", "List the BMCs that were found."),
        },
        "BMCs that were found.",
    ),
    "job": (
        {
            "list": (f"{_JOBS}:job_list", "List jobs."),
            "show": (f"{_JOBS}:job_show", "Show one job with its evidence."),
            "logs": (f"{_VERBS}:job_logs", "Print or follow a job's log."),
            "cancel": (f"{_VERBS}:job_cancel", "Stop a job at the next safe point."),
            "retry": (f"{_VERBS}:job_retry", "Take a failed job up again."),
            "skip": (f"{_JOBS}:job_skip", "Let a failed step count as skipped."),
            "hold": (f"{_JOBS}:job_hold", "Begin no next step of a job."),
            "unhold": (f"{_JOBS}:job_unhold", "Let a held job go on."),
            "confirm": (f"{_JOBS}:job_confirm", "Say whether a parked step was done."),
            "kill": (f"{_JOBS}:job_kill", "End a job at once, whatever its step does."),
            "archive": (f"{_JOBS}:job_archive", "Put an ended job out of the lists."),
        },
        "Jobs.",
    ),
    "group": (
        {
            "list": (f"{_GROUPS}:group_list", "List orders that were given together."),
            "show": (f"{_GROUPS}:group_show", "Show how a group fares."),
            "cancel": (f"{_GROUPS}:group_cancel", "Cancel what has not ended of a group."),
            "retry": (f"{_GROUPS}:group_retry", "Retry what failed of a group."),
        },
        "Orders given for many servers at once.",
    ),
    "event": (
        {"follow": (f"{_VERBS}:event_follow", "Print what changes, as it changes.")},
        "Events.",
    ),
    "asset": (
        {
            "add": (f"{_ASSETS}:asset_add", "Register content by URL or upload."),
            "clone": (f"{_ASSETS}:asset_clone", "Make another name for the same content."),
            "list": (f"{_NOUNS}:asset_list", "List assets by site."),
            "show": (f"{_NOUNS}:asset_show", "Show one asset."),
            "export": (f"{_ASSETS}:asset_export", "Write an asset's content into a file."),
            "want": (f"{_ASSETS}:asset_want", "Make a site hold an asset."),
            "unwant": (f"{_ASSETS}:asset_unwant", "Let a site drop an asset."),
            "seed": (f"{_ASSETS}:asset_seed", "Make sites hold an asset, and wait."),
            "pin": (f"{_ASSETS}:asset_pin", "Let an asset stay at a site."),
            "unpin": (f"{_ASSETS}:asset_unpin", "Take a pin away."),
            "verify": (f"{_SHELF}:asset_verify", "Read the content on a disk again."),
            "gc": (f"{_SHELF}:asset_gc", "Let content go that nobody wants."),
            "remove": (f"{_ASSETS}:asset_remove", "Take a name away."),
        },
        "Images and files.",
    ),
    "erase": (
        {
            "list": (f"{_ERASES}:erase_list", "List disks that were erased."),
            "show": (f"{_ERASES}:erase_show", "Show a record."),
            "export": (f"{_ERASES}:erase_export", "Write the file that proves a record."),
            "verify": (f"{_ERASES}:erase_verify", "Check such a file, offline."),
        },
        "Erased disks, and the proof of it.",
    ),
    "cleanup-policy": (
        {
            "show": (f"{_ERASES}:policy_show", "Show how disks are erased."),
            "set": (f"{_ERASES}:policy_set", "Say how disks are erased."),
        },
        "How disks are erased when a server is released.",
    ),
    "template": (
        {
            "add": (f"{_TEMPLATES}:template_add", "Make or change a boot template."),
            "list": (f"{_TEMPLATES}:template_list", "List the boot templates."),
            "show": (f"{_TEMPLATES}:template_show", "Print a template."),
            "render": (f"{_TEMPLATES}:template_render", "Print what a server would get."),
            "remove": (f"{_TEMPLATES}:template_remove", "Take a template away."),
            "example": (f"{_TEMPLATES}:template_example", "Print one to begin with."),
        },
        "Boot templates, which answer installers.",
    ),
    "hook": (
        {
            "add": (f"{_HOOKS}:hook_add", "Make or change a hook."),
            "list": (f"{_HOOKS}:hook_list", "List the hooks."),
            "show": (f"{_HOOKS}:hook_show", "Show a hook."),
            "remove": (f"{_HOOKS}:hook_remove", "Take a hook away."),
        },
        "What else is done before and after deploy and release.",
    ),
    "token": (
        {
            "create": (f"{_VERBS}:token_create", "Make a join token."),
            "list": (f"{_NOUNS}:token_list", "List join tokens."),
            "revoke": (f"{_VERBS}:token_revoke", "Make a token worthless."),
        },
        "Join tokens.",
    ),
    "secret": (
        {
            "set": (f"{_VERBS}:secret_set", "Seal a secret to a site's nodes."),
            "release": (
                f"{_VERBS}:secret_release",
                "Give a later node the secrets of its site.",
            ),
            "change": (f"{_VERBS}:secret_change", "Change the passwords behind secrets."),
            "list": (f"{_NOUNS}:secret_list", "List secrets, never their values."),
        },
        "Secrets.",
    ),
    "account": (
        {
            "list": (f"{_PEOPLE}:account_list", "List who may sign in."),
            "show": (f"{_PEOPLE}:account_show", "Show one account."),
            "add": (f"{_PEOPLE}:account_add", "Make an account."),
            "password": (f"{_PEOPLE}:account_password", "Give an account a new password."),
            "role": (f"{_PEOPLE}:account_role", "Change what an account may do."),
            "disable": (f"{_PEOPLE}:account_disable", "Keep an account out."),
            "enable": (f"{_PEOPLE}:account_enable", "Let a disabled account in again."),
            "remove": (f"{_PEOPLE}:account_remove", "Delete an account."),
        },
        "People who may sign in.",
    ),
    "apitoken": (
        {
            "create": (f"{_PEOPLE}:apitoken_create", "Make an API token for a program."),
            "list": (f"{_PEOPLE}:apitoken_list", "List API tokens, never their secrets."),
            "revoke": (f"{_PEOPLE}:apitoken_revoke", "Make an API token worthless."),
        },
        "API tokens of programs.",
    ),
    "bundle": (
        {
            "create": (f"{_BUNDLE}:bundle_create", "Write assets into one file to carry."),
            "inspect": (f"{_BUNDLE}:bundle_inspect", "List and check what is in a file."),
            "import": (f"{_BUNDLE}:bundle_import", "Let a node take a file in."),
        },
        "Assets carried by hand.",
    ),
    "state": (
        {
            "export": ("mesh.cli.state:state_export", "Write signed state to a file."),
            "import": ("mesh.cli.state:state_import", "Take over state from a file."),
        },
        "State carried by hand.",
    ),
    "service": (
        {
            "print": ("mesh.cli.service:print_unit", "Print the systemd unit of a role."),
            "install": ("mesh.cli.service:install", "Run a role under systemd, without root."),
            "uninstall": ("mesh.cli.service:uninstall", "Stop and remove a role's unit."),
        },
        "The service of this machine.",
    ),
    "support-bundle": ("mesh.cli.support:support_bundle", "Collect what support needs."),
    "api": (f"{_VERBS}:api", "Call the API as it is."),
    "completion": ("mesh.cli.completion:completion", "Print a completion script."),
    "version": ("rackmesh:version", "Print the version."),
}


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print a document.")
def version(as_json: bool) -> None:
    """Print the version."""
    from mesh.host.build import BUILD

    if as_json:
        click.echo(f'{{"schema": "rackmesh/version/1", "item": {{"build": "{BUILD}"}}}}')
    else:
        click.echo(f"rackmesh {BUILD}")


cli = LazyGroup(
    name="rackmesh",
    table=TABLE,
    no_args_is_help=True,
    help="Run racks of bare-metal servers at many small sites.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)


def main() -> None:
    """Run one command and leave with its exit code."""
    try:
        code = cli.main(prog_name="rackmesh", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.Abort as exc:  # Ctrl-C, or "no" to a question
        sys.exit(INTERRUPTED if isinstance(exc.__cause__, KeyboardInterrupt) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
