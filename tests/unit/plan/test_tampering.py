from dataclasses import replace

from wgd.plan.tampering import Known, distrust, known
from wgd.policy.ruleset import Chain, Ruleset

CHAINS = {"forward": Chain("hook", "abc", 2, content="read back"), "deny": Chain(None, "def", 1, content="d")}
SET = Ruleset(CHAINS, generation=7)


def with_forward(chain: Chain, generation: int = 7) -> Ruleset:
    return replace(SET, chains={**SET.chains, "forward": chain}, generation=generation)


def test_a_chain_that_reads_as_it_did_is_trusted() -> None:
    assert distrust(SET, known(SET)) == SET


def test_a_chain_that_reads_otherwise_under_its_own_mark_is_like_no_other() -> None:
    changed = distrust(with_forward(Chain("hook", "abc", 2, content="accept")), known(SET))
    assert changed is not None
    assert changed.chains["forward"] != SET.chains["forward"]
    assert changed.chains["deny"] == SET.chains["deny"]


def test_chains_that_were_set_anew_since_are_trusted() -> None:
    anew = with_forward(Chain("hook", "abc", 2, content="other rules"), generation=8)
    assert distrust(anew, known(SET)) == anew


def test_no_chain_is_trusted_of_a_generation_that_nobody_set() -> None:
    forged = distrust(with_forward(CHAINS["forward"], generation=9), known(SET), any_generation=True)
    assert forged is not None
    assert all(chain != CHAINS[name] for name, chain in forged.chains.items())
    assert distrust(SET, known(SET), any_generation=True) == SET


def test_nothing_is_known_of_a_table_that_is_not_there() -> None:
    assert distrust(None, known(SET)) is None
    assert known(None) == Known()
