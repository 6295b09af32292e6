"""The event log's copy in the journal, from a real gateway; what takes the entries stands where journald does."""

import pytest
from world import PYTHON, World, wait_until

POLICY = """
  rules:
    - name: web
      client_id: alice
      allow: [{to: 10.20.0.10, proto: tcp, ports: [8080]}, {to: 'fd20::10', proto: tcp, ports: [8080]}]
"""
JOURNAL = """
import os, socket, sys
os.makedirs("/run/systemd/journal")
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
print("listening", flush=True)
while True:
    print(journal.recv(65536).decode(), flush=True)
"""


@pytest.fixture(scope="module")
def gateway(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        made.daemon = made.serve()
        for client in (made.alice, made.bob):
            made.connect(client)
        made.drop_in = made.server_yaml.with_name("server.d") / "journal.yaml"
        made.drop_in.parent.mkdir()
        yield made


def test_without_a_journal_a_reload_is_refused_and_the_log_goes_on(gateway):
    gateway.drop_in.write_text("logging: {journal: true}\n")
    said = gateway.daemon.reload()
    gateway.drop_in.unlink()
    assert "/run/systemd/journal/socket: the journal cannot be reached: No such file or directory" in said
    assert not gateway.bob.gets(World.LAN[0])
    gateway.event(event="deny", client="bob")


def test_flows_denials_and_reloads_reach_the_journal_until_it_is_switched_off(gateway):
    journal = gateway.gateway.start(PYTHON, "-c", JOURNAL)
    wait_until("the journal", lambda: "listening" in journal.output)
    gateway.drop_in.write_text("logging: {journal: true}\n")
    gateway.daemon.reload()
    for family, (alice, bob) in enumerate([("10.80.0.2:", "10.80.0.3:"), ("[fd80::2]:", "[fd80::3]:")]):
        assert gateway.alice.gets(World.LAN[family])
        assert not gateway.bob.gets(World.LAN[family])
        for said in (f"MESSAGE=alice opens tcp {alice}", f"MESSAGE=bob is denied tcp {bob}"):
            wait_until(said, lambda said=said: said in journal.output)
    assert f"WGD_EVENT=deny\nWGD_VERDICT=deny\nWGD_CLIENT_ID={gateway.keys['bob']}\nWGD_CLIENT=bob\n" in journal.output
    gateway.drop_in.unlink()
    gateway.daemon.reload()
    told = journal.output
    assert not gateway.bob.gets(World.LAN[0], 9001)
    gateway.event(event="deny", client="bob", dst_port=9001)
    assert journal.output == told
