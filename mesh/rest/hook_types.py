"""What the API says about hooks."""

from typing import TypedDict


class Hook(TypedDict):
    """A hook: what else is done before or after a server is deployed or released."""

    name: str
    point: str  # before-deploy | after-deploy | before-release | after-release
    kind: str  # webhook | ssh | ansible
    site: str | None  # None: every site
    secret: str | None  # id; a value is never shown
    url: str | None
    pin: str | None
    command: str | None
    host: str | None
    port: int
    user: str
    host_key: str | None
    playbook: str | None
    asset: str | None
    connection: str  # ssh | local
    repeatable: bool
    on_failure: str  # fail | continue
    timeout_s: int
    tries: int
    changed_ms: int
    by: str | None
