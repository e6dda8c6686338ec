"""A URL of a stranger reaches the public internet and nothing else, however it is spelt or resolved."""

import ipaddress
from collections.abc import Callable, Sequence

import pytest

from bestiary.errors import MediaError
from bestiary.media.addresses import canonical_host, is_public, may_reach
from bestiary.media.connecting import system_resolve
from bestiary.media.fetching import fetch
from bestiary.media.limits import MediaLimits

INSIDE = MediaLimits(private=True)


def unasked(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001::1"),
    *("2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "100::1"),
    *("5f00::1", "4000::1", "::ffff:0:127.0.0.1"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700:4700::1111"]
PUBLIC += ["::ffff:8.8.8.8", "64:ff9b::808:808", "2a00:1450:4001:800::200e"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    for found in ([address], ["8.8.8.8", address]):  # one among others is enough
        with pytest.raises(MediaError, match="not on the public internet") as caught:
            fetch("http://pictures.test/a.png", resolve=lambda host, port, found=found: found)
        assert "169.254" not in str(caught.value)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1"]
)
def test_private_does_not_open_what_is_link_local(address: str) -> None:
    assert not may_reach(ipaddress.ip_address(address), private=True)
    assert may_reach(ipaddress.ip_address("10.0.0.1"), private=True)


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "127.0.0.1.1"),
        *("0x7f.1", "a.1", "1.0x", "1２7.1", "256.0.0.1", "[::1%25lo]", "[fe80::1%25eth0]", "[1]", "[::1"),
        *("a..b", ".a", "-a", "a-", "a_b!", "a%2eb", "%31", "", "a" * 300, "[v1.x]"),
    ],
)
def test_hosts_that_are_spelt_to_deceive(host: str) -> None:
    with pytest.raises(MediaError):
        fetch(f"http://{host}/a.png", INSIDE, resolve=unasked)


@pytest.mark.parametrize(
    ("host", "due"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127。0。0。1", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("::FFFF:127.0.0.1", "::ffff:7f00:1"),
        ("under_score.example", "under_score.example"),
    ],
)
def test_hosts_in_their_one_spelling(host: str, due: str) -> None:
    made = canonical_host(host)
    assert ipaddress.ip_address(made) == ipaddress.ip_address(due) if ":" in due else made == due


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost.", "LOCALHOST", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_machine_by_the_system_resolver(host: str, serve: Callable) -> None:
    answering = serve(lambda connection, request: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nsecret"))
    with pytest.raises(MediaError, match=r"public internet|not known"):
        fetch(answering.url(host=host), resolve=system_resolve)
    assert not answering.requests


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://pictures.test/a",
            "gopher://pictures.test/",
            "data:image/png;base64,AA",
            "//a/b",
        ),
        *("http:///a", "http://", "pictures.test/a", "http://user@pictures.test/", "http://user:word@pictures.test/"),
        *("http://pictures.test@127.0.0.1/", "http://@pictures.test/", "http://pictures.test\\@127.0.0.1/"),
        *(
            "http://pictures.test/a b",
            "http://pictures.test/\r\nX: y",
            "http://pic\ttures.test/",
            " http://pictures.test/",
        ),
        *("http://pictures.test:99999/", "http://pictures.test:x/", "http://pictures.test:-1/"),
    ],
)
def test_urls_that_are_not_fetched(url: str) -> None:
    with pytest.raises(MediaError):
        fetch(url, INSIDE, resolve=unasked)
