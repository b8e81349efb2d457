"""Each misdeed of a Redfish BMC at its sensors, log or settings ends in one sentence."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from drivers.api import Bmc, BmcCredentials, BmcLimits, open_bmc
from drivers.errors import (
    DeviceLied,
    DeviceRefused,
    DeviceUnreachable,
    DriverError,
    LoginRefused,
    NotOffered,
)
from drivers.proto.health import EVENTS_MAX
from drivers.proto.redfish_health import PAGES_MAX
from tests.io.test_hostile_bmc import BAD, SECRET, sentence
from tests.support.hostile_bmc import SYSTEM, HostileBmc, answer, hostile_bmc, system

LIMITS = BmcLimits(request_s=0.4, boot_wait_s=0.4, report_s=3, poll_s=0.1)
WHO = BmcCredentials(username="admin", password=SECRET)
ROOT = {
    "Systems": {"@odata.id": "/redfish/v1/Systems"},
    "UpdateService": {"@odata.id": "/u"},
    "AccountService": {"@odata.id": "/a"},
}
LINKED = system(
    Links={"Chassis": [{"@odata.id": "/c"}]}, Bios={"@odata.id": "/b"},
    LogServices={"@odata.id": "/l"},
)  # fmt: skip
RESOURCES: dict[str, Any] = {
    "/redfish/v1/": ROOT, SYSTEM: LINKED,
    "/c": {"Thermal": {"@odata.id": "/c/t"}},
    "/c/t": {"Temperatures": [{"Name": "CPU", "ReadingCelsius": 40}]},
    "/l": {"Members": [{"@odata.id": "/l/1"}]}, "/l/1": {"Entries": {"@odata.id": "/l/1/e"}},
    "/l/1/e": {"Members": [{"Id": "1", "Message": "m"}]},
    "/b": {"Attributes": {"A": "1"},
           "@Redfish.Settings": {"SettingsObject": {"@odata.id": "/s"}}},
    "/s": {"Attributes": {}},
    "/u": {"FirmwareInventory": {"@odata.id": "/u/f"}},
    "/u/f": {"Members": [{"@odata.id": "/u/f/1"}]}, "/u/f/1": {"Name": "BIOS", "Version": "1"},
    "/a": {"Accounts": {"@odata.id": "/a/a"}}, "/a/a": {"Members": [{"@odata.id": "/a/a/1"}]},
    "/a/a/1": {"UserName": "admin", "Id": "1"},
}  # fmt: skip
Verb = Callable[[Bmc], Awaitable[Any]]
VERBS: dict[str, tuple[Verb, str]] = {
    "sensors": (lambda bmc: bmc.sensors(), "/c/t"),
    "events": (lambda bmc: bmc.events(), "/l/1/e"),
    "bios": (lambda bmc: bmc.bios(), "/b"),
    "firmware": (lambda bmc: bmc.firmware(), "/u/f/1"),
    "accounts": (lambda bmc: bmc.accounts(), "/a/a/1"),
}
"""Each verb, and the resource of it that does the misdeed."""


@asynccontextmanager
async def driver(
    changed: dict[str, Any], limits: BmcLimits = LIMITS
) -> AsyncGenerator[tuple[HostileBmc, Bmc]]:
    """A service with these resources changed: bodies, or bytes of a whole answer."""
    bodies = {**RESOURCES, **changed}

    def behave(method: str, path: str, body: bytes) -> bytes:
        found = bodies.get(path)
        if callable(found):
            found = found(method, body)
        if isinstance(found, bytes):
            return found
        return answer(404) if found is None else answer(200, found)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=limits) as bmc:
            yield service, bmc


async def test_the_service_that_behaves_is_read() -> None:
    async with driver({}) as (_, bmc):
        assert await bmc.capabilities() >= VERBS.keys()
        for verb, _ in VERBS.values():
            assert await verb(bmc)


ELSEWHERE = {"404", "not a system", "redirects in a circle"}
"""Misdeeds that mean something else here."""


@pytest.mark.parametrize("name", [name for name in BAD if name not in ELSEWHERE])
async def test_each_misdeed_gives_one_clear_sentence_in_time(name: str) -> None:
    behaviour, kind, words = BAD[name]
    bad = behaviour("GET", SYSTEM, b"")
    for verb, path in VERBS.values():
        async with driver({path: bad}) as (_, bmc):
            with trio.fail_after(4), pytest.raises(kind) as caught:
                await verb(bmc)
        assert words in sentence(caught.value)


async def test_what_is_not_there_is_not_offered() -> None:
    for verb, _ in VERBS.values():
        gone = dict.fromkeys(("/c", "/l", "/b", "/u", "/a"))
        async with driver(gone) as (_, bmc):
            with pytest.raises(NotOffered) as caught:
                await verb(bmc)
        sentence(caught.value)


@pytest.mark.parametrize("wrong", [None, 42, [], {}, True, "x", [[]], [None], {"a": {}}])
async def test_wrong_types_anywhere_are_absent_or_a_sentence(wrong: object) -> None:
    for where, body in RESOURCES.items():
        if where in ("/redfish/v1/", SYSTEM):
            continue
        async with driver({where: dict.fromkeys(body, wrong)}) as (_, bmc):
            for verb, _ in VERBS.values():
                try:
                    await verb(bmc)
                except DriverError as exc:
                    sentence(exc)


@pytest.mark.parametrize("path", ["/l/1/e", "/u/f", "/a/a"])
async def test_pages_without_an_end_are_left(path: str) -> None:
    page = {"Members": [], "Members@odata.nextLink": f"{path}?x"}
    async with driver({path: page, f"{path}?x": page}) as (service, bmc):
        for verb, _ in VERBS.values():
            try:
                await verb(bmc)
            except DriverError as exc:
                sentence(exc)
        assert len(service.requests) < 3 * PAGES_MAX + 40


async def test_a_log_of_links_without_an_end_costs_a_bounded_number_of_requests() -> None:
    page = {
        "Members": [{"@odata.id": f"/l/1/e/{n}"} for n in range(5000)],
        "Members@odata.nextLink": "/l/1/e",
    }
    patient = BmcLimits(request_s=5, report_s=60)
    async with driver({"/l/1/e": page}, patient) as (service, bmc):
        assert (await bmc.events()).more
        assert len(service.requests) < EVENTS_MAX + 20


async def test_each_slow_answer_counts_against_the_time_of_the_whole() -> None:
    limits = BmcLimits(request_s=5, report_s=0)
    async with driver({}, limits) as (_, bmc):
        for verb, _ in VERBS.values():
            with pytest.raises(DeviceUnreachable, match="could not be read within 0 s"):
                await verb(bmc)


async def test_links_to_another_host_are_not_followed() -> None:
    for link in ("//198.51.100.1/x", "http://198.51.100.1/x", "/../x", 7):
        away = {"@odata.id": link}
        async with driver({
            "/c": {"Thermal": away, "Power": away, "Sensors": away},
            "/l/1": {"Entries": away}, "/u": {"FirmwareInventory": away},
            "/a": {"Accounts": away},
        }) as (service, bmc):  # fmt: skip
            for verb, _ in VERBS.values():
                try:
                    await verb(bmc)
                except NotOffered:
                    continue
            assert all(path in RESOURCES for _, path, _, _ in service.requests)


async def test_a_setting_that_is_accepted_but_not_kept_is_a_lie() -> None:
    def keeps_nothing(method: str, body: bytes) -> Any:
        return answer(204, b"") if method == "PATCH" else {"Attributes": {}}

    async with driver({"/s": keeps_nothing}) as (_, bmc):
        with pytest.raises(DeviceLied, match="accepted the BIOS setting 'A', but still"):
            await bmc.set_bios({"A": "2"})
        with pytest.raises(DeviceRefused, match="no BIOS setting 'B'"):
            await bmc.set_bios({"B": "2"})


async def test_the_etag_of_the_settings_is_sent_back_and_its_quoting_found_out() -> None:
    kept: dict[str, Any] = {}

    def settings(method: str, body: bytes) -> Any:
        if method == "GET":
            return answer(200, {"Attributes": kept}, {"ETag": 'W/"abc"'})
        if service.requests[-1][2].get("if-match") != "abc":
            return answer(412)
        kept.update(json.loads(body)["Attributes"])
        return answer(204, b"")

    async with driver({"/s": settings}) as (service, bmc):
        assert (await bmc.set_bios({"A": "2"})).pending == {"A": "2"}
        count = len(service.requests)
        assert (await bmc.set_bios({"A": "2"})).pending == {"A": "2"}
        assert "PATCH" not in [method for method, _, _, _ in service.requests[count:]]


async def test_a_refused_login_is_tried_once() -> None:
    strangers = {path: answer(401) for path in RESOURCES if path != "/redfish/v1/"}
    for verb, _ in VERBS.values():
        async with driver(strangers) as (service, bmc):
            with pytest.raises(LoginRefused):
                await verb(bmc)
        assert [path != "/redfish/v1/" for _, path, _, _ in service.requests].count(True) == 1
