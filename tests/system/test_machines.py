"""The machines that the other tests rely on."""


def test_every_unit_of_a_bare_machine_comes_up(site):
    assert [machine.run("systemctl", "--failed", "--plain", "--no-legend") for machine in site.machines] == ["", "", ""]


def test_the_gateway_reaches_both_networks(site):
    for address in ("192.0.2.2", "2001:db8::2", "10.20.0.10", "fd20::11"):
        site.gateway.run("ping", "-c", "1", "-W", "5", address)


def test_outside_and_inside_do_not_reach_each_other_without_the_gateway(site):
    assert not site.client.succeeds("ping", "-c", "1", "-W", "1", "10.20.0.10")
