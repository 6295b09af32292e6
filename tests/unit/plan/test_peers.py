from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from wgd.model import Endpoint, Network, PublicKey, SecretKey
from wgd.plan.peers import change
from wgd.plan.state import Device, DevicePeer, PeerChange

HOME, ROAMED = Endpoint("192.0.2.7", 51820), Endpoint("198.51.100.9", 4711)


def key(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "big"))


def nets(*texts: str) -> frozenset[Network]:
    return frozenset(map(ip_network, texts))


def peer(number: int, *allowed_ips: str, **fields: object) -> DevicePeer:
    return replace(DevicePeer(key(number), nets(*allowed_ips)), **fields)


def device(*peers: DevicePeer) -> Device:
    return Device("wgd0", SecretKey(b"k" * 32), 51820, peers)


def applied(actual: Device, desired: Device, previous: Device | None = None) -> tuple[Device, list[frozenset[Network]]]:
    """Do what WireGuard does with the change; also give the allowed ips held by anyone after each step."""
    changes = change(desired, actual, previous)
    peers = {peer.public_key: peer for peer in actual.peers}
    steps = []
    for step in changes.peers:
        _apply(peers, step)
        steps.append(frozenset().union(*(peer.allowed_ips for peer in peers.values())))
    private_key = changes.private_key or actual.private_key
    listen_port = actual.listen_port if changes.listen_port is None else changes.listen_port
    return Device("wgd0", private_key, listen_port, tuple(peers.values())), steps


def _apply(peers: dict[PublicKey, DevicePeer], step: PeerChange) -> None:
    if step.remove:
        peers.pop(step.public_key, None)
        return
    if step.public_key not in peers and not step.create:
        return
    now = peers.get(step.public_key, DevicePeer(step.public_key, frozenset()))
    kept = frozenset() if step.replace_allowed_ips else now.allowed_ips
    keepalive = step.persistent_keepalive
    peers[step.public_key] = replace(
        now,
        allowed_ips=kept | frozenset(step.allowed_ips),
        preshared_key=None if step.clear_preshared_key else step.preshared_key or now.preshared_key,
        endpoint=step.endpoint or now.endpoint,
        persistent_keepalive=now.persistent_keepalive if keepalive is None else keepalive,
    )
    for other in set(peers) - {step.public_key}:
        peers[other] = replace(peers[other], allowed_ips=peers[other].allowed_ips - frozenset(step.allowed_ips))


def test_equal_devices_give_a_false_change() -> None:
    both = device(peer(1, "10.0.0.1/32", endpoint=HOME, persistent_keepalive=25, preshared_key=SecretKey(b"p" * 32)))
    assert not change(both, both)


def test_traffic_and_handshakes_are_no_difference() -> None:
    quiet = device(peer(1, "10.0.0.1/32"))
    busy = device(peer(1, "10.0.0.1/32", last_handshake=1.5, rx_bytes=3, tx_bytes=4))
    assert not change(quiet, busy)


def test_private_key_and_listen_port_are_set_alone() -> None:
    actual = device(peer(1, "10.0.0.1/32"))
    found = change(replace(actual, private_key=SecretKey(b"n" * 32), listen_port=7), actual)
    assert (found.private_key, found.listen_port, found.peers) == (SecretKey(b"n" * 32), 7, ())


def test_a_private_key_or_port_that_is_not_wanted_is_left() -> None:
    actual = device()
    assert not change(replace(actual, private_key=None, listen_port=None), actual)


def test_a_private_key_that_wireguard_clamped_is_no_difference() -> None:
    given, clamped = SecretKey(b"\xff" * 32), SecretKey(b"\xf8" + b"\xff" * 30 + b"\x7f")
    assert not change(replace(device(), private_key=given), replace(device(), private_key=clamped))


def test_a_new_peer_is_created_with_everything_it_has() -> None:
    new = peer(
        2, "fd00::/64", "10.0.0.2/32", endpoint=HOME, persistent_keepalive=25, preshared_key=SecretKey(b"p" * 32)
    )
    assert change(device(new), device()).peers == (
        PeerChange(
            key(2),
            create=True,
            preshared_key=SecretKey(b"p" * 32),
            endpoint=HOME,
            persistent_keepalive=25,
            replace_allowed_ips=True,
            allowed_ips=(ip_network("10.0.0.2/32"), ip_network("fd00::/64")),
        ),
    )


def test_a_peer_that_goes_is_removed_before_anything_else_is_set() -> None:
    found = change(device(peer(2, "10.0.0.1/32")), device(peer(1, "10.0.0.1/32")))
    assert [(step.public_key, step.remove) for step in found.peers] == [(key(1), True), (key(2), False)]


def test_a_changed_peer_leaves_the_others_out() -> None:
    actual = device(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32"))
    found = change(device(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32", persistent_keepalive=9)), actual)
    assert found.peers == (PeerChange(key(2), persistent_keepalive=9),)


def test_an_added_allowed_ip_is_only_added() -> None:
    found = change(device(peer(1, "10.0.0.1/32", "10.0.0.9/32")), device(peer(1, "10.0.0.1/32")))
    assert found.peers == (PeerChange(key(1), allowed_ips=(ip_network("10.0.0.9/32"),)),)


def test_a_removed_allowed_ip_replaces_the_whole_list() -> None:
    actual = device(peer(1, "10.0.0.1/32", "10.0.0.8/32"))
    found = change(device(peer(1, "10.0.0.1/32", "10.0.0.9/32")), actual)
    new, both = (ip_network("10.0.0.9/32"),), (ip_network("10.0.0.1/32"), ip_network("10.0.0.9/32"))
    assert found.peers == (
        PeerChange(key(1), allowed_ips=new),
        PeerChange(key(1), replace_allowed_ips=True, allowed_ips=both),
    )


def test_losing_the_last_allowed_ip_replaces_by_nothing() -> None:
    found = change(device(peer(1)), device(peer(1, "10.0.0.1/32")))
    assert found.peers == (PeerChange(key(1), replace_allowed_ips=True),)


def test_an_allowed_ip_that_moves_is_set_at_its_new_peer_alone() -> None:
    actual = device(peer(1, "10.0.0.1/32", "10.9.0.0/24"), peer(2, "10.0.0.2/32"))
    desired = device(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32", "10.9.0.0/24"))
    assert change(desired, actual).peers == (PeerChange(key(2), allowed_ips=(ip_network("10.9.0.0/24"),)),)


def test_an_allowed_ip_that_a_new_peer_takes_over_is_set_there_alone() -> None:
    actual = device(peer(1, "10.0.0.1/32", "10.9.0.0/24"))
    found = change(device(peer(1, "10.0.0.1/32"), peer(2, "10.9.0.0/24")), actual)
    assert [step.public_key for step in found.peers] == [key(2)]


def test_a_swap_of_allowed_ips_comes_out_right() -> None:
    actual = device(peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32"))
    desired = device(peer(1, "10.0.0.2/32"), peer(2, "10.0.0.1/32"))
    assert set(applied(actual, desired)[0].peers) == set(desired.peers)


def test_preshared_keys_are_set_changed_and_cleared() -> None:
    one, two = SecretKey(b"1" * 32), SecretKey(b"2" * 32)
    bare, first, second = (device(peer(1, preshared_key=secret)) for secret in (None, one, two))
    assert change(first, bare).peers == (PeerChange(key(1), preshared_key=one),)
    assert change(second, first).peers == (PeerChange(key(1), preshared_key=two),)
    assert change(bare, second).peers == (PeerChange(key(1), clear_preshared_key=True),)


def test_keepalive_is_switched_off_by_zero() -> None:
    found = change(device(peer(1)), device(peer(1, persistent_keepalive=25)))
    assert found.peers == (PeerChange(key(1), persistent_keepalive=0),)


def test_an_endpoint_that_is_not_wanted_leaves_the_kernels() -> None:
    assert not change(device(peer(1)), device(peer(1, endpoint=ROAMED)))


def test_without_a_previous_device_the_endpoint_is_set_where_it_differs() -> None:
    found = change(device(peer(1, endpoint=HOME)), device(peer(1, endpoint=ROAMED)))
    assert found.peers == (PeerChange(key(1), endpoint=HOME),)


def test_a_roaming_peer_keeps_its_endpoint_over_a_reload() -> None:
    desired = device(peer(1, endpoint=HOME))
    assert not change(desired, device(peer(1, endpoint=ROAMED)), previous=desired)


def test_an_endpoint_that_the_config_changed_is_set_on_a_roaming_peer() -> None:
    new = Endpoint("203.0.113.1", 1)
    found = change(device(peer(1, endpoint=new)), device(peer(1, endpoint=ROAMED)), device(peer(1, endpoint=HOME)))
    assert found.peers == (PeerChange(key(1), endpoint=new),)


def test_an_endpoint_that_the_kernel_lost_is_set_again() -> None:
    desired = device(peer(1, endpoint=HOME))
    assert change(desired, device(peer(1)), previous=desired).peers == (PeerChange(key(1), endpoint=HOME),)


def test_the_spelling_of_an_ipv6_endpoint_is_no_difference() -> None:
    written, read = Endpoint("2001:DB8:0::7", 51820), Endpoint("2001:db8::7", 51820)
    assert not change(device(peer(1, endpoint=written)), device(peer(1, endpoint=read)))


ADDRESSES = [f"10.0.0.{number}/32" for number in range(6)]


@st.composite
def devices(draw: st.DrawFn) -> Device:
    owners = draw(st.lists(st.integers(0, 4), min_size=len(ADDRESSES), max_size=len(ADDRESSES)))
    kept = draw(st.sets(st.integers(1, 4)))
    return device(
        *(
            peer(
                number,
                *(address for address, owner in zip(ADDRESSES, owners, strict=True) if owner == number),
                persistent_keepalive=draw(st.sampled_from([0, 25])),
                preshared_key=draw(st.sampled_from([None, SecretKey(b"1" * 32), SecretKey(b"2" * 32)])),
            )
            for number in sorted(kept)
        )
    )


@given(devices(), devices())
def test_applying_a_change_reaches_the_desired_device_and_a_second_one_is_empty(
    actual: Device, desired: Device
) -> None:
    reached, _ = applied(actual, desired)
    assert set(reached.peers) == set(desired.peers)
    assert not change(desired, reached)


@given(devices(), devices())
def test_no_desired_address_is_lost_on_the_way_but_with_a_removed_peer(actual: Device, desired: Device) -> None:
    staying = {peer.public_key for peer in desired.peers}
    held = [peer.allowed_ips for peer in actual.peers if peer.public_key in staying]
    wanted = frozenset().union(*(peer.allowed_ips for peer in desired.peers))
    throughout = frozenset().union(*held) & wanted
    for step in applied(actual, desired)[1]:
        assert throughout <= step
