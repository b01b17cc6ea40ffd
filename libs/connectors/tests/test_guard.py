"""The address guard and the names in SQL: what must not get through."""

from __future__ import annotations

import asyncio

import pytest
from headrace_connectors.api import AddressGuard, ConnectorError, Secret
from headrace_connectors.identifiers import check_postgresql_name, literal, quote, split_table
from hypothesis import given
from hypothesis import strategies as st

OPEN = AddressGuard(allow_loopback=True, allowed_networks=("0.0.0.0/0", "::/0"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "localhost",
        "::ffff:127.0.0.1",
        "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:0a00:0001::", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::",
    ],
)  # fmt: skip
async def test_only_public_addresses_by_default(host: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        await AddressGuard().resolve(host, 5432)
    assert caught.value.code == "ADDRESS_NOT_ALLOWED"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "169.254.1.1", "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "ff02::1"]
)
async def test_metadata_and_link_local_cannot_be_allowed(host: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        await OPEN.resolve(host, 80)
    assert caught.value.code == "ADDRESS_NOT_ALLOWED"


@pytest.mark.parametrize(
    "host", ["a b", "a/b", "/tmp", "a@b", "a\nb", "", "x" * 300, "fe80::1%eth0", "h?x=1"]
)
async def test_what_is_no_host_is_refused_before_any_lookup(host: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        await OPEN.resolve(host, 80)
    assert caught.value.code == "HOST_INVALID"


async def test_own_endpoints_are_never_reached_by_any_name() -> None:
    guard = AddressGuard(allow_loopback=True, denied_endpoints=(("127.0.0.1", 5433),))
    for host in ("127.0.0.1", "localhost", "127.0.0.2", "::1", "::ffff:127.0.0.1"):
        with pytest.raises(ConnectorError, match="this installation"):
            await guard.resolve(host, 5433)
        assert await guard.resolve(host, 5434)


async def test_a_network_can_be_allowed() -> None:
    guard = AddressGuard(allowed_networks=("10.1.0.0/16",))
    assert await guard.resolve("10.1.2.3", 5432) == ("10.1.2.3",)
    with pytest.raises(ConnectorError):
        await guard.resolve("10.2.0.1", 5432)


async def test_one_bad_address_of_many_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with pytest.raises(ConnectorError, match="not a public address"):
        await AddressGuard().resolve("rebinding.example", 80)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_quoting_is_undone_by_reading(name: str) -> None:
    assert split_table(f"{quote(name)}.{quote('t')}") == (name, "t")
    assert literal(name)[1:-1].replace("''", "'") == name


@pytest.mark.parametrize("text", ["", "a.b.c", '"a', '"a"b', ".a", "a.", 'a."b'])
def test_malformed_table_names(text: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        split_table(text)
    assert caught.value.code == "TABLE_NAME_INVALID"


def test_names_postgresql_would_cut_are_refused() -> None:
    check_postgresql_name("x" * 63, "table")
    with pytest.raises(ConnectorError, match="64 bytes"):
        check_postgresql_name("ż" * 32, "table")
    with pytest.raises(ConnectorError):
        quote("a\0b")


def test_a_secret_never_shows() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hunter2"
