"""The virtual CD drive of one server through its Redfish BMC.

Decides nothing: what bodies mean stands in `drivers.proto.redfish_media`. The rule: a disc is
in or out when the BMC reports it; an order that got no answer in time is judged by that, too.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from drivers.api import BmcLimits
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, DriverError
from drivers.patience import Patience
from drivers.proto import redfish as core
from drivers.proto import redfish_media as media
from drivers.proto.quirks import Quirks
from drivers.redfish_http import Answer, complain

_WRONG_VALUE: Final = 400
_WRONG_TAG: Final = frozenset({412, 428})


class Call(Protocol):
    """One request to the service, with the session's rights."""

    async def __call__(  # noqa: D102
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer: ...


class RedfishDrive:
    """The first CD drive among a system's virtual media; one caller at a time."""

    def __init__(
        self,
        url: str,
        system: str,
        call: Call,
        read: Callable[[Answer], dict[str, Any]],
        quirks: Quirks,
        limits: BmcLimits,
    ) -> None:
        """``url`` is for sentences, ``system`` the system's path, ``read`` takes an answer's
        body and raises a DriverError."""
        self._url, self._system = url, system
        self._call, self._read = call, read
        self._quirks, self._limits = quirks, limits
        self._path: str | None = None

    async def inserted(self) -> str | None:
        """See `drivers.api.VirtualMedia`."""
        return media.in_drive(await self._drive(), self._quirks)

    async def insert(self, url: str) -> None:
        """See `drivers.api.VirtualMedia`."""
        try:
            await self._insert(url)
        except DriverError as exc:
            raise type(exc)(media.without(str(exc), url)) from None

    async def _insert(self, url: str) -> None:
        drive = await self._drive()
        seen = media.in_drive(drive, self._quirks)
        if seen == url:
            return
        if seen is not None:  # many refuse to change a disc
            await self.eject()
            drive = await self._drive()
        try:
            answer = await self._order_insert(drive, url)
        except DeviceUnreachable:
            answer = None  # some answer only when they have read it all
        if answer is not None and not answer.ok:
            raise complain(answer)
        await self._until(
            lambda image: media.shows(image, url), "said yes to the disc, but shows it not"
        )

    async def _order_insert(self, drive: media.Drive, url: str) -> Answer:
        answer: Answer | None = None
        for body in media.insert_bodies(url):
            if drive.insert_path is not None:
                answer = await self._call("POST", drive.insert_path, body)
            else:
                answer = await self._patch(drive, body)
            if answer.status != _WRONG_VALUE:
                break
        assert answer is not None
        return answer

    async def eject(self) -> None:
        """See `drivers.api.VirtualMedia`."""
        drive = await self._drive()
        if media.in_drive(drive, self._quirks) is None:
            return
        if drive.eject_path is not None:
            answer = await self._call("POST", drive.eject_path, {})
        else:
            answer = await self._patch(drive, {"Image": None, "Inserted": False})
        if not answer.ok and await self.inserted() is not None:
            raise complain(answer)
        await self._until(
            lambda image: image is None, "said yes to ejecting, but keeps its disc"
        )

    async def _patch(self, drive: media.Drive, body: dict[str, Any]) -> Answer:
        answer: Answer | None = None
        for tag in core.if_match_values(drive.etag):
            headers = {} if tag is None else {"if-match": tag}
            answer = await self._call("PATCH", drive.path, body, headers)
            if answer.status not in _WRONG_TAG:
                break
        assert answer is not None
        return answer

    async def _until(self, true: Callable[[str | None], bool], sentence: str) -> None:
        patience = Patience(self._limits.media_wait_s, self._limits.poll_s)
        while not true(await self.inserted()):
            if not await patience.again():
                raise DeviceLied(
                    f"{self._url}: its virtual CD drive {sentence}"
                    f" after {self._limits.media_wait_s:g} s"
                )

    async def _drive(self) -> media.Drive:
        if self._path is not None:
            return await self._look(self._path)
        for collection in await self._collections():
            for path in self._members(await self._call("GET", collection)):
                drive = await self._look(path)
                if drive.takes_discs:
                    self._path = path
                    return drive
        raise DeviceRefused(f"{self._url}: has no virtual CD drive, so it cannot boot by media")

    def _members(self, answer: Answer) -> list[str]:
        try:
            return core.parse_members(self._read(answer))[: media.DRIVES_MAX]
        except core.NotRedfish as exc:
            raise DeviceLied(f"GET {answer.url}: the body is {exc}") from exc

    async def _look(self, path: str) -> media.Drive:
        answer = await self._call("GET", path)
        return media.parse_drive(self._read(answer), path, answer.headers.get("etag"))

    async def _collections(self) -> list[str]:
        """Return where drives may be: below the system, else below its managers."""
        system = self._read(await self._call("GET", self._system))
        own = media.media_links(system)
        if own is not None:
            return [own]
        found: list[str] = []
        for manager in media.managers(system):
            body = self._read(await self._call("GET", manager))
            if (collection := media.media_links(body)) is not None:
                found.append(collection)
        return found
