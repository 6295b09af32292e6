"""Which sysctls the gateway needs, in which order, and what they were (promise 11).

Facts this rests on, from the kernel's Documentation/networking/ip-sysctl.rst and its source:
- Writing ipv4/ip_forward or ipv6/conf/all/forwarding writes `forwarding` of every interface too, and the first of them
  ipv4/conf/all/accept_redirects (net/ipv4/devinet.c, inet_forward_change).
- An interface that forwards ignores router advertisements unless its accept_ra is 2, and the switch purges the
  default route it has learned: accept_ra has to change before.
- With rp_filter on (the larger of `all` and the interface's own counts), the reverse lookup must see our mark, or
  the rules of plan/routing.py refuse the sender: src_valid_mark. Set on `all` it would break a host's TPROXY.
- A host with routing rules looks the way back to the sender up for every packet, rp_filter or not, unless the interface
  has rp_filter off and accept_local on (fib_validate_source in net/ipv4/fib_frontend.c): 270 ns. On our own interface
  that look-up finds nothing: WireGuard drops every packet whose source is none of its sender's AllowedIPs, and a source
  that the kernel itself would refuse there, one of the gateway's own or a broadcast address, the ruleset denies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wgd.model import Forwarding, ServerConfig
from wgd.plan import flow_accounting

SWITCHES = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
ON, OFF = "1", "0"
ACCEPT_RA_DESPITE_FORWARDING = "2"
TEMPLATES = ("all", "default")
OWN_SETTINGS = {"send_redirects": OFF, "rp_filter": OFF, "accept_local": ON}
"""What the gateway's own interface gets."""
ACCEPT_REDIRECTS = "ipv4/conf/all/accept_redirects"
CHANGED_WITH_SWITCH = frozenset({"forwarding", "accept_ra", "accept_redirects"})
"""The settings of an interface that a switch changes, or that are changed because of it."""


def forwarded_families(config: ServerConfig) -> frozenset[int]:
    """Return the families that have a tunnel address and a peer."""
    tunnel = {address.version for address in config.interface.address}
    peers = {network.version for peer in config.peers for network in peer.allowed_ips}
    return frozenset(tunnel & peers)


def held_families(config: ServerConfig, settings: Mapping[str, str], originals: Mapping[str, str]) -> frozenset[int]:
    """Return the families whose switch wgd turns on: wanted, and off before wgd (`originals`: what we changed)."""
    if config.forwarding is Forwarding.MANUAL:
        return frozenset()
    return frozenset(
        family
        for family in forwarded_families(config)
        if originals.get(SWITCHES[family], settings.get(SWITCHES[family])) == OFF
    )


def missing_families(config: ServerConfig, settings: Mapping[str, str]) -> frozenset[int]:
    """Return the families that should be forwarded and are not."""
    return frozenset(family for family in forwarded_families(config) if settings.get(SWITCHES[family]) != ON)


def desired_settings(config: ServerConfig, settings: Mapping[str, str], originals: Mapping[str, str]) -> dict[str, str]:
    """Return what to write, in this order, so that the gateway forwards; empty when all is as it should be."""
    own = f"ipv4/conf/{config.interface.name}"
    wanted = {f"{own}/{name}": value for name, value in OWN_SETTINGS.items()}
    wanted |= _source_marks({**settings, **{name: value for name, value in wanted.items() if name in settings}})
    held = held_families(config, settings, originals)
    if 6 in held:  # noqa: PLR2004 - the IP version
        wanted |= {
            name: ACCEPT_RA_DESPITE_FORWARDING
            for name, value in settings.items()
            if name.endswith("/accept_ra") and value == ON and not _forwarded_before(name, settings, originals)
        }
    wanted |= {SWITCHES[family]: ON for family in sorted(held)}
    wanted |= flow_accounting.desired_settings(config, settings)
    return {name: value for name, value in wanted.items() if settings.get(name) not in (value, None)}


def _forwarded_before(name: str, settings: Mapping[str, str], originals: Mapping[str, str]) -> bool:
    """Tell whether the interface of a setting forwarded by itself, and so took no advertisements, before wgd."""
    forwarding = f"{name.rpartition('/')[0]}/forwarding"
    if SWITCHES[6] in originals:
        return originals.get(forwarding) == ON
    return settings.get(forwarding) == ON


def _source_marks(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield src_valid_mark for the interfaces that filter by reverse path."""
    everywhere = settings["ipv4/conf/all/rp_filter"]
    for name, value in settings.items():
        folder, _, setting = name.rpartition("/")
        if setting != "rp_filter" or folder.rpartition("/")[2] in TEMPLATES:
            continue
        if max(int(everywhere), int(value)) > 0 and settings["ipv4/conf/all/src_valid_mark"] == OFF:
            yield f"{folder}/src_valid_mark", ON


def no_longer_held(config: ServerConfig, settings: Mapping[str, str], originals: Mapping[str, str]) -> dict[str, str]:
    """Return what to write, in this order, so that what the config has no use for any more is put back."""
    held = held_families(config, settings, originals)
    given_up = {family for family, switch in SWITCHES.items() if switch in originals and family not in held}
    return restore(
        {name: value for name, value in originals.items() if any(_goes_with(name, family) for family in given_up)}
        | flow_accounting.no_longer_wanted(config, originals)
    )


def _goes_with(name: str, family: int) -> bool:
    """Tell whether a sysctl is the family's switch or changes with it."""
    folder, _, setting = name.rpartition("/")
    return name == SWITCHES[family] or (folder.startswith(f"ipv{family}/conf/") and setting in CHANGED_WITH_SWITCH)


def restore(originals: Mapping[str, str]) -> dict[str, str]:
    """Return what to write, in this order, so that everything is as it was: the switches first.

    A switch writes every interface; what single interfaces had before follows it.
    """
    switches = {name: value for name, value in originals.items() if name in SWITCHES.values()}
    return {**switches, **{name: value for name, value in originals.items() if name not in switches}}


def before(changes: Mapping[str, str], settings: Mapping[str, str], originals: Mapping[str, str]) -> dict[str, str]:
    """Return `originals` with what `changes` is about to overwrite; what is noted already stays.

    With a switch goes what every interface of its family had, if it was not what the switch leaves behind when it is
    turned back, and whether redirects were accepted: turning IPv4's back leaves that on.
    """
    noted = {name: settings[name] for name in changes if name in settings}
    if SWITCHES[4] in changes:
        noted[ACCEPT_REDIRECTS] = settings[ACCEPT_REDIRECTS]
    for family, switch in SWITCHES.items():
        if switch in changes:
            noted |= {
                name: value
                for name, value in settings.items()
                if name.startswith(f"ipv{family}/conf/") and name.endswith("/forwarding") and value != settings[switch]
            }
    return {**noted, **originals}
