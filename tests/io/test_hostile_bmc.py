"""Each misdeed of a BMC becomes one clear sentence, within a bounded time."""

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import drivers.certificate
from drivers.api import Bmc, BmcCredentials, BmcLimits, open_bmc, shown_certificate
from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, DriverError
from tests.support.hostile_bmc import (
    CLOSE,
    DRIP,
    HANG,
    RESET,
    SYSTEM,
    Behaviour,
    always,
    answer,
    hostile_bmc,
    on_system,
    plausible,
    system,
)

LIMITS = BmcLimits(request_s=0.4, power_wait_s=0.4, boot_wait_s=0.4, poll_s=0.1)
SECRET = "correct horse battery staple"
WHO = BmcCredentials(username="admin", password=SECRET)


@asynccontextmanager
async def driver(behaviour: Behaviour) -> AsyncGenerator[Bmc]:
    async with (
        hostile_bmc(behaviour) as service,
        open_bmc(service.url + SYSTEM, WHO, limits=LIMITS) as bmc,
    ):
        yield bmc


def sentence(error: DriverError) -> str:
    text = str(error)
    assert SECRET not in text
    assert "\n" not in text
    assert 20 < len(text) < 1000
    assert "http" in text
    return text


DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
BAD = {
    "401": (always(answer(401)), DeviceRefused, "status 401"),
    "403": (always(answer(403)), DeviceRefused, "status 403"),
    "404": (on_system(answer(404)), DeviceRefused, "status 404"),
    "500": (on_system(answer(500, b"<h1>oops</h1>")), DeviceRefused, "status 500"),
    "hangs": (always(HANG), DeviceUnreachable, "no answer within 0.4 s"),
    "drips": (on_system(DRIP), DeviceUnreachable, "no answer within 0.4 s"),
    "hangs up": (always(CLOSE), DeviceUnreachable, "connection broke"),
    "talks nonsense": (always(b"SSH-2.0-OpenSSH\r\n\r\n"), DeviceUnreachable, "broke"),
    "redirects away": (
        on_system(answer(302, headers={"Location": "http://198.51.100.1/x"})),
        DeviceRefused,
        "status 302",
    ),
    "redirects in a circle": (
        on_system(answer(307, headers={"Location": SYSTEM})),
        DeviceRefused,
        "status 307",
    ),
    "huge": (on_system(answer(200, b" " * (2 << 20))), DeviceLied, "more than 1048576 bytes"),
    "deep": (on_system(answer(200, DEEP)), DeviceLied, "nested too deep"),
    "rather deep": (
        on_system(answer(200, b'{"PowerState":' + b"[" * 100 + b"]" * 100 + b"}")),
        DeviceLied,
        "nested too deep",
    ),
    "no json": (on_system(answer(200, b"hello")), DeviceLied, "not JSON"),
    "a list": (on_system(answer(200, [1])), DeviceLied, "not an object"),
    "long number": (on_system(answer(200, b"1" * 9000)), DeviceLied, "not JSON"),
    "not a system": (on_system(answer(200, {"Name": "fan"})), DeviceLied, "no computer system"),
    "compressed": (
        on_system(answer(200, b"x", {"Content-Encoding": "gzip"})),
        DeviceLied,
        "encoding",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_each_misdeed_gives_one_clear_sentence_in_time(name: str) -> None:
    behaviour, kind, words = BAD[name]
    for verb in ("power", "set power", "set boot"):
        async with driver(behaviour) as bmc:
            calls = {
                "power": bmc.power_state,
                "set power": partial(bmc.set_power, True),
                "set boot": partial(bmc.set_boot, "network"),
            }
            with trio.fail_after(4), pytest.raises(kind) as caught:
                await calls[verb]()
        assert words in sentence(caught.value)


async def test_power_that_is_said_to_be_on_but_stays_off_is_a_lie() -> None:
    async with driver(plausible) as bmc:
        with trio.fail_after(3), pytest.raises(DeviceLied, match="accepted On") as caught:
            await bmc.set_power(True)
    assert "still 'off' after 0.4 s" in sentence(caught.value)


async def test_a_boot_device_that_is_accepted_but_not_set_is_a_lie() -> None:
    async with driver(plausible) as bmc:
        with trio.fail_after(3), pytest.raises(DeviceLied, match="accepted boot from network"):
            await bmc.set_boot("network")


@pytest.mark.parametrize("wrong", [None, 42, [], {}, True, "Onn", ["On"]])
async def test_values_of_wrong_types_count_as_absent(wrong: object) -> None:
    strange = system(PowerState=wrong, Boot=wrong, Actions=wrong, Manufacturer=wrong)
    async with driver(on_system(answer(200, strange))) as bmc:
        assert await bmc.power_state() == "unknown"
        assert await bmc.boot_device() == "other"


async def test_a_reset_target_on_another_host_is_not_called() -> None:
    lure = system(Actions={"#ComputerSystem.Reset": {"target": "//198.51.100.1/reset"}})

    def behave(method: str, path: str, body: bytes) -> bytes:
        if method == "GET" and path == SYSTEM:
            return answer(200, lure)
        return plausible(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=LIMITS) as bmc:
            with pytest.raises(DeviceLied):
                await bmc.set_power(True)
        assert ("POST", RESET) in [(m, p) for m, p, _, _ in service.requests]


async def test_orders_already_carried_out_are_not_sent_again() -> None:
    async with hostile_bmc(plausible) as service:
        async with open_bmc(service.url, WHO, limits=LIMITS) as bmc:
            await bmc.set_power(False)
            await bmc.set_boot("disk")
        assert {m for m, _, _, _ in service.requests} == {"GET"}


async def test_a_session_is_used_where_offered_and_given_back() -> None:
    def behave(method: str, path: str, body: bytes) -> bytes:
        if path == "/redfish/v1/":
            sessions = {"@odata.id": "/redfish/v1/SessionService/Sessions"}
            return answer(200, {"Links": {"Sessions": sessions}})
        if path.endswith("/Sessions"):
            assert json.loads(body) == {"UserName": "admin", "Password": SECRET}
            where = "/redfish/v1/SessionService/Sessions/7"
            return answer(201, {}, {"X-Auth-Token": "tok", "Location": where})
        return plausible(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=LIMITS) as bmc:
            assert await bmc.power_state() == "off"
    (_, _, headers, _), last = service.requests[2], service.requests[-1]
    assert headers["x-auth-token"] == "tok"
    assert "authorization" not in headers
    assert last[:2] == ("DELETE", "/redfish/v1/SessionService/Sessions/7")


async def test_a_broken_session_service_leaves_basic_authentication() -> None:
    def behave(method: str, path: str, body: bytes) -> bytes:
        if path == "/redfish/v1/":
            return answer(200, {"Links": {"Sessions": {"@odata.id": "/redfish/v1/S"}}})
        return answer(501) if path == "/redfish/v1/S" else plausible(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=LIMITS) as bmc:
            assert await bmc.power_state() == "off"
    assert service.requests[-1][2]["authorization"].startswith("Basic ")


async def test_an_etag_is_sent_back_and_its_quoting_found_out() -> None:
    boot = {"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Continuous"}
    tags: list[str | None] = []

    def behave(method: str, path: str, body: bytes) -> bytes:
        if method == "PATCH":
            seen = service.requests[-1][2].get("if-match")
            tags.append(seen)
            if seen != "abc":
                return answer(412)
            boot.update(json.loads(body)["Boot"])
            return answer(204, b"")
        if path == SYSTEM:
            return answer(200, system(Boot=boot), {"ETag": 'W/"abc"'})
        return plausible(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url + SYSTEM, WHO, limits=LIMITS) as bmc:
            await bmc.set_boot("network")
            assert await bmc.boot_device() == "network"
    assert tags == ['W/"abc"', '"abc"', "abc"]


async def test_a_busy_service_is_asked_again_after_the_time_that_it_names() -> None:
    replies = [answer(503, headers={"Retry-After": "0"}), answer(200, system())]
    async with driver(
        lambda method, path, body: (
            replies.pop(0) if path == SYSTEM else plausible(method, path, body)
        )
    ) as bmc:
        assert await bmc.power_state() == "off"


async def test_several_systems_must_be_named() -> None:
    def behave(method: str, path: str, body: bytes) -> bytes:
        if path == "/redfish/v1/Systems":
            members = [{"@odata.id": SYSTEM}, {"@odata.id": "/redfish/v1/Systems/2"}]
            return answer(200, {"Members": members})
        return plausible(method, path, body)

    async with hostile_bmc(behave) as service:
        async with open_bmc(service.url, WHO, limits=LIMITS) as bmc:
            with pytest.raises(DeviceRefused, match="has 2 systems") as caught:
                await bmc.power_state()
    assert "Systems/2" in sentence(caught.value)


async def test_a_closed_port_is_unreachable() -> None:
    async with hostile_bmc(plausible) as service:
        pass
    async with open_bmc(service.url, WHO, limits=LIMITS) as bmc:
        with pytest.raises(DeviceUnreachable, match=r"cannot connect \(Connection refused\)"):
            await bmc.power_state()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "telnet://h",
        "http://",
        "http://u:p@h",
        "http://h:99999",
        "https://h/\x00",
        "http://h/é",
    ],
)
async def test_an_unusable_address_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(DeviceRefused, match="address"):
        async with open_bmc(url, WHO):
            raise AssertionError("must not open")


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"username": 1, "password": "x"},
        {"username": "a", "password": "b", "tls_sha256": "z"},
    ],
)
def test_an_unusable_secret_is_refused_in_one_sentence(secret: dict[str, object]) -> None:
    with pytest.raises(DeviceRefused):
        BmcCredentials.parse(secret)


def test_credentials_do_not_print_the_password() -> None:
    assert SECRET not in repr(WHO)


async def test_a_pinned_certificate_is_accepted_and_any_other_gets_no_request(
    self_signed: tuple[ssl.SSLContext, str],
) -> None:
    context, fingerprint = self_signed
    for pin, fits in ((fingerprint, True), ("0" * 64, False), (None, False)):
        who = BmcCredentials(username="admin", password=SECRET, tls_sha256=pin)
        async with hostile_bmc(plausible, context) as service:
            async with open_bmc(service.url + SYSTEM, who, limits=LIMITS) as bmc:
                if fits:
                    assert await bmc.power_state() == "off"
                    continue
                with pytest.raises(DeviceRefused, match="SHA-256"):
                    await bmc.power_state()
            assert service.requests == []


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bmc")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))  # long expired, as on real BMCs
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "bmc.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, certificate.fingerprint(hashes.SHA256()).hex()


async def test_the_certificate_is_shown_before_any_login_and_then_pinned(
    self_signed: tuple[ssl.SSLContext, str],
) -> None:
    context, fingerprint = self_signed
    async with hostile_bmc(plausible, context) as service:
        shown = await shown_certificate(service.url)
        assert shown.sha256 == fingerprint.replace(":", "").lower()
        assert shown.until_ms is not None
        assert service.requests == []
        who = BmcCredentials(username="admin", password=SECRET, tls_sha256=shown.sha256)
        async with open_bmc(service.url + SYSTEM, who, limits=LIMITS) as bmc:
            assert await bmc.power_state() == "off"


async def test_where_no_certificate_is_shown_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers.certificate, "WAIT_S", 0.3)
    async with hostile_bmc(plausible) as service:
        plain = service.url.replace("http://", "https://")
        with pytest.raises(DeviceUnreachable, match="no certificate within"):
            await shown_certificate(plain)
    with pytest.raises(DeviceUnreachable, match="shows no certificate"):
        await shown_certificate("https://127.0.0.1:1")
    for url in ("http://h", "ipmi://h", "https://u:p@h", ""):
        with pytest.raises(DeviceRefused) as caught:
            await shown_certificate(url)
        assert "u:p" not in str(caught.value)
