"""S14: for whom a proxy speaks."""

import pytest

from schedulerd.core.proxies import caller_of, network_from, peer_of_address

TRUSTED = (network_from("10.0.0.0/28"), network_from("fd00::1"))


@pytest.mark.parametrize(
    ("address", "forwarded", "caller"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),  # no proxy of ours: what it says counts for nothing
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the first one was written by a stranger
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, <script>, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ],
)
def test_s14_the_last_hop_that_is_no_trusted_proxy_is_the_caller(address, forwarded, caller):
    assert caller_of(address, forwarded, TRUSTED) == caller


@pytest.mark.parametrize(
    ("address", "peer"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1:2:3:4", "2001:db8::/64"), ("x", "x")],
)
def test_s14_an_ipv6_address_counts_for_its_network(address, peer):
    assert peer_of_address(address) == peer


@pytest.mark.parametrize("text", ["", "proxy", "10.0.0.7/24", "10.0.0.0/33", "0.0.0.0/0", "::/0"])
def test_s14_what_is_no_address_or_everybodys_is_a_mistake(text):
    with pytest.raises(ValueError, match=r"address|everybody"):
        network_from(text)
