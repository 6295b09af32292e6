"""The bytes of elements, as nft 1.0.6 writes them (`nft --debug=mnl`) and the kernel lists them."""

import pytest

from wgd.kernel import nft_listing as listing
from wgd.kernel.netlink import attribute, nested
from wgd.kernel.nft_listing import ANONYMOUS, HAS_TIMEOUT, INTERVAL, MAP, VERDICT_TYPE, Rule, SetHead
from wgd.kernel.nft_messages import LARGEST_LIST, batch
from wgd.plan.state import Action, ElementChange
from wgd.policy.ruleset import Element, KeySet, VerdictMap

ADDRESS = int.from_bytes([10, 20, 0, 0])
BEGIN = "14000000 1000 0100 00000000 00000000 0000 000a"
END = "14000000 1100 0100 00000000 00000000 0000 000a"
TABLE = "0800 0100 77676400"


def sent(change: ElementChange) -> str:
    """Return the one message of a change without its header, the acknowledgement's flag and what is around it."""
    found = batch((change,))
    assert found[:20].hex() == BEGIN.replace(" ", "")
    assert found[-20:].hex() == END.replace(" ", "")
    return found[36:-20].hex()


def packed(*parts: str) -> str:
    return "".join(parts).replace(" ", "")


def test_an_interval_of_one_field_is_its_first_value_and_the_end_after_its_last() -> None:
    change = ElementChange(Action.ADD, "s", ("ipv4_addr",), (((ADDRESS, ADDRESS + 255),),))
    begun = "1000 0180  0c00 0180  0800 0100 0a140000"
    ended = "1800 0180  0c00 0180  0800 0100 0a140100  0800 0300 00000001"
    assert sent(change) == packed("01000000", TABLE, "0600 0200 73000000", "2c00 0380", begun, ended)


def test_an_interval_up_to_the_last_value_has_no_end() -> None:
    change = ElementChange(Action.ADD, "s", ("inet_service",), (((80, 65535),),))
    assert sent(change).endswith(packed("1400 0380  1000 0180  0c00 0180  0600 0100 0050 0000"))


def test_an_element_of_several_fields_has_two_keys_each_field_filled_up() -> None:
    fields = ("inet_service", "inet_proto", "ipv4_addr")
    change = ElementChange(Action.ADD, "p", fields, (((80, 81), (6, 6), (ADDRESS, ADDRESS + 255)),))
    first = "1400 0180  1000 0100 00500000 06000000 0a140000"
    last = "1400 0a80  1000 0100 00510000 06000000 0a1400ff"
    assert sent(change).endswith(packed("3000 0380  2c00 0180", first, last))


def test_an_ipv6_address_has_sixteen_bytes() -> None:
    change = ElementChange(Action.ADD, "s", ("ipv6_addr",), (((1, 2**128 - 1),),))
    assert sent(change).endswith(packed("1c00 0180  1800 0180  1400 0100", "00" * 15, "01"))


def test_a_verdict_is_a_jump_to_a_chain() -> None:
    change = ElementChange(Action.ADD, "m", ("ipv4_addr",), {((ADDRESS, ADDRESS),): "pol"})
    verdict = "1800 0280  1400 0280  0800 0100 fffffffd  0800 0200 706f6c00"
    begun = packed("2800 0180  0c00 0180  0800 0100 0a140000", verdict)
    assert begun in sent(change)


def test_a_timeout_is_milliseconds_and_never_none_at_all() -> None:
    for seconds, milliseconds in ((1.5, 1500), (0.0001, 1)):
        fields = ("inet_service", "inet_proto")
        change = ElementChange(Action.ADD, "t", fields, (((1, 1), (6, 6)),), timeout=seconds)
        assert sent(change).endswith(packed("0c00 0400", milliseconds.to_bytes(8).hex()))


def test_a_set_is_emptied_by_a_deletion_that_names_no_element() -> None:
    found = batch((ElementChange(Action.FLUSH, "s"),))
    assert found[20:36].hex() == packed("24000000 0e0a 0500 01000000 00000000")
    assert sent(ElementChange(Action.FLUSH, "s")) == packed("01000000", TABLE, "0600 0200 73000000")


def test_many_elements_are_many_messages_of_one_transaction() -> None:
    many = tuple(((value, value),) for value in range(10_000))
    found = batch((ElementChange(Action.ADD, "s", ("ipv4_addr",), many), ElementChange(Action.FLUSH, "t")))
    lengths, places, offset = [], [], 0
    while offset < len(found):
        length = int.from_bytes(found[offset : offset + 4], "little")
        lengths.append(length)
        places.append(int.from_bytes(found[offset + 8 : offset + 12], "little"))
        offset += length
    assert max(lengths) < LARGEST_LIST + 100
    assert places[0] == places[-1] == 0
    assert places[1:-1] == [1] * (len(places) - 3) + [2]


def listed(*elements: bytes) -> list[bytes]:
    """Return the list of a kernel that answers with these elements."""
    return [b"".join(elements)]


def element(key: str, *others: bytes) -> bytes:
    return nested(1, attribute(1, attribute(1, bytes.fromhex(key))), *others)


IS_END = attribute(3, bytes.fromhex("00000001"))


def head(*fields: str, flags: int = INTERVAL, type_: int = 0) -> SetHead:
    return SetHead("s", flags, fields, type_)


def verdict(code: int, chain: str = "") -> bytes:
    target = [attribute(2, chain.encode() + b"\0")] if chain else []
    return attribute(2, attribute(2, attribute(1, code.to_bytes(4, signed=True)) + b"".join(target)))


def addresses(first: int, last: int) -> Element:
    return ((ADDRESS + first, ADDRESS + last),)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ([element("0a140000"), element("0a140001", IS_END)], {addresses(0, 0)}),
        ([element("0a140100", IS_END), element("0a140000")], {addresses(0, 255)}),
        # The end at 0 that nft puts before the first interval.
        ([element("00000000", IS_END), element("0a140000"), element("0a140001", IS_END)], {addresses(0, 0)}),
        (
            [element("0a140001"), element("0a140001", IS_END), element("0a140000"), element("0a140002", IS_END)],
            {addresses(0, 0), addresses(1, 1)},
        ),
        ([element("0a140000")], {((ADDRESS, 2**32 - 1),)}),
        ([], set()),
    ],
    ids=["one address", "in any order", "with an end before all", "neighbours", "to the last address", "none"],
)
def test_the_intervals_of_one_field_are_put_together(elements: list[bytes], expected: set[Element]) -> None:
    found = listing.key_set(head("ipv4_addr"), listed(*elements), 0)
    assert found == KeySet(("ipv4_addr",), frozenset(expected))


def test_an_element_of_several_fields_is_read_with_both_keys_or_one() -> None:
    last = attribute(10, attribute(1, bytes.fromhex("00510000060000000a1400ff")))
    both, one = element("00500000060000000a140000", last), element("00500000060000000a140000")
    fields = ("inet_service", "inet_proto", "ipv4_addr")
    found = listing.key_set(head(*fields), listed(both, one), 0).elements
    assert found == {((80, 81), (6, 6), (ADDRESS, ADDRESS + 255)), ((80, 80), (6, 6), (ADDRESS, ADDRESS))}


def test_a_set_whose_elements_time_out_ends_with_the_last_of_them() -> None:
    timed = [element(key, attribute(5, left.to_bytes(8))) for key, left in (("0a140000", 1500), ("0a140001", 9000))]
    found = listing.key_set(head("ipv4_addr", flags=HAS_TIMEOUT), listed(*timed), 100.0)
    assert (found.elements, found.until) == ({addresses(0, 0), addresses(1, 1)}, 109)
    assert listing.key_set(head("ipv4_addr", flags=HAS_TIMEOUT), [], 100.0).until == 0


@pytest.mark.parametrize("data", [verdict(1), verdict(-4, "out_1"), attribute(2, attribute(1, b"\0\0\0\5")), b""])
def test_what_is_no_jump_equals_no_wish(data: bytes) -> None:
    begun, ended = element("0a140000", data), element("0a140001", IS_END)
    found = listing.verdict_map(head("ipv4_addr", flags=INTERVAL | MAP, type_=VERDICT_TYPE), listed(begun, ended))
    assert "out_1" not in found.elements.values()


def test_a_verdict_map_gives_the_chains_that_are_jumped_to() -> None:
    begun, ended = element("0a140000", verdict(-3, "out_1")), element("0a140001", IS_END)
    found = listing.verdict_map(head("ipv4_addr", flags=INTERVAL | MAP, type_=VERDICT_TYPE), listed(begun, ended))
    assert found == VerdictMap(("ipv4_addr",), {addresses(0, 0): "out_1"})


def test_a_map_to_anything_else_is_no_map_of_ours() -> None:
    assert listing.verdict_map(head("ipv4_addr", flags=MAP, type_=19), []) != VerdictMap(("ipv4_addr",), {})


def number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4))


@pytest.mark.parametrize(
    ("key", "fields"),
    [(7, ("ipv4_addr",)), (0xD307, ("inet_service", "inet_proto", "ipv4_addr")), (41, ("type 41",)), (0, ())],
)
def test_a_sets_type_is_of_six_bits_a_field(key: int, fields: tuple[str, ...]) -> None:
    body = attribute(2, b"s\0") + number(3, INTERVAL | ANONYMOUS) + number(4, key)
    found = listing.set_head(memoryview(body))
    assert (found.name, found.fields, found.anonymous, found.is_map) == ("s", fields, True, False)


def test_a_set_of_a_type_that_is_not_ours_has_no_elements() -> None:
    assert listing.key_set(head("type 41"), listed(element("65746830")), 0) == KeySet(("type 41",), frozenset())


@pytest.mark.parametrize(
    ("marks", "expected"),
    [(["0a000000"], 5), (["0a000000", "0c000000"], 0), ([], 0), (["0b000000"], 0), (["0a000001"], 0)],
)
def test_the_generation_in_force_is_the_one_mark_of_its_set(marks: list[str], expected: int) -> None:
    # In the order of this machine's bytes.
    keys = [element(bytes.fromhex(mark)[::-1].hex()) for mark in marks]
    assert listing.generation_of(head("mark", flags=0), listed(*keys)) == expected


def counter(packets: int) -> bytes:
    counted = attribute(1, (99).to_bytes(8)) + attribute(2, packets.to_bytes(8))
    return nested(1, attribute(1, b"counter\0"), attribute(2, counted))


def read_rule(*expressions: bytes, comment: bytes = b"") -> Rule:
    userdata = bytes([0, len(comment) + 1]) + comment + b"\0"
    body = attribute(2, b"c\0") + nested(4, *expressions) + attribute(7, userdata)
    return listing.rule(memoryview(body))


def test_what_a_rule_has_counted_is_no_part_of_what_it_says() -> None:
    other = nested(1, attribute(1, b"ct\0"))
    one, more = read_rule(other, counter(1)), read_rule(other, counter(7))
    assert (one.expressions, one.packets, more.packets) == (more.expressions, 1, 7)
    assert read_rule(other).expressions != one.expressions


def test_a_chain_is_known_by_the_comment_of_its_first_rule_and_the_number_of_its_rules() -> None:
    rules = [read_rule(comment=comment) for comment in (b"abc", b"", b"x")]
    found = listing.chain_of(None, rules, lambda _: b"")
    assert (found.mark, found.rule_count) == ("abc", 3)
    assert listing.chain_of(None, rules[1:], lambda _: b"").mark == ""


def test_a_chains_content_has_the_elements_of_the_sets_in_its_rules() -> None:
    rules = [read_rule(nested(1, attribute(1, b"lookup\0")))]
    contents = {
        listing.chain_of(None, rules, lambda _, elements=elements: elements).content for elements in (b"1", b"2")
    }
    assert len(contents) == 2


def hooked(priority: int) -> bytes:
    hook = nested(4, number(1, 1), attribute(2, priority.to_bytes(4, signed=True)))
    return attribute(1, b"wgd\0") + attribute(3, b"in\0") + hook + number(5, 1) + attribute(7, b"filter\0")


def test_a_base_chain_has_its_hook_and_a_regular_one_has_none() -> None:
    assert listing.chain(memoryview(hooked(0))) == (
        "wgd",
        "in",
        "type filter hook input priority filter; policy accept;",
    )
    assert "priority -150;" in str(listing.chain(memoryview(hooked(-150)))[2])
    assert listing.chain(memoryview(attribute(1, b"wgd\0") + attribute(3, b"c\0"))) == ("wgd", "c", None)
