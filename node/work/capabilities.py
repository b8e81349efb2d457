"""Boot, phone-in, media and answer capabilities of this site: minted and checked for a machine.

It knows the site's secrets and the format (mesh/proto/capability.py), no job: whether the
attempt is the current one is asked by the caller. Rule: a phone-in capability never lets a
machine hello, nor the other way round, since each names its machine under its own prefix; texts
are never logged."""

from typing import Final

from mesh.errors import CodecError, Refused
from mesh.proto.capability import (
    Capability,
    mint_capability,
    parse_capability,
    verify_capability,
)
from node.work.ports import (
    CAPABILITY_MS,
    MEDIA_CAPABILITY_MS,
    PHONE_CAPABILITY_MS,
    SiteSecrets,
)

BOOT: Final = "boot:"
PHONE: Final = "phone:"
MEDIA: Final = "media:"
ANSWERS: Final = "answers:"
DISC: Final = "disc:"
_LIFE_MS: Final = {
    BOOT: CAPABILITY_MS, PHONE: PHONE_CAPABILITY_MS, MEDIA: MEDIA_CAPABILITY_MS,
    ANSWERS: CAPABILITY_MS, DISC: CAPABILITY_MS,
}  # fmt: skip


class Capabilities:
    """Mints and checks under the site's secret."""

    def __init__(self, secrets: SiteSecrets, site: str) -> None:
        self._secrets = secrets
        self._site = site

    def mint(
        self, purpose: str, server_id: str, job: str, attempt: int, now_ms: int
    ) -> str | None:
        """Return a capability; None while this node has no site secret."""
        held = self._secrets.current()
        if held is None:
            return None
        epoch, secret = held
        return mint_capability(
            secret,
            secret_epoch=epoch,
            site=self._site,
            machine=purpose + server_id,
            job=job,
            attempt=attempt,
            not_after_s=(now_ms + _LIFE_MS[purpose]) // 1000,
        )

    def like(self, found: Capability, purpose: str, server_id: str) -> str:
        """Return a capability for the same attempt and as long as one that was checked, so that
        the same text comes out each time; raises Refused when the site secret has changed."""
        secret = self._secrets.secret(found.secret_epoch)
        if secret is None:
            raise Refused("the site secret has changed; retry the job")
        return mint_capability(
            secret,
            secret_epoch=found.secret_epoch,
            site=self._site,
            machine=purpose + server_id,
            job=found.job,
            attempt=found.attempt,
            not_after_s=found.not_after_s,
        )

    def job_of(self, text: str) -> str | None:
        """Return the job that a capability names, unchecked; None for garbage."""
        try:
            return parse_capability(text).job
        except CodecError:
            return None

    def check(self, purpose: str, text: str, server_id: str, now_ms: int) -> Capability:
        """Return what a genuine, living capability of this server says, or raise Refused."""
        found = verify_capability(
            text, self._secrets.secret, site=self._site, now_s=now_ms // 1000
        )
        if not found.is_for(purpose + server_id):
            raise Refused("the capability is of another machine")
        return found
