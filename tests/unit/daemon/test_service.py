"""The interface io.wgd.Server: what each call needs, what it answers, and that it is what the description says."""

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.daemon.client_service import ClientService
from wgd.daemon.control import Caller
from wgd.daemon.description import CLIENT, CLIENT_INTERFACE, INTERFACE, SERVER, VARLINK_SERVICE
from wgd.daemon.service import Service
from wgd.errors import ConfigError, KernelError, Problem, WgdError
from wgd.host.varlink import SERVICE, Call, VarlinkError
from wgd.model import Address
from wgd.plan.preview import Change

ROOT, READER = Caller(0, may_change=True), Caller(1000, may_change=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class Fake:
    """A daemon that does what it is asked, or refuses with `error`."""

    def __init__(self, error: WgdError | None = None) -> None:
        self.done: list[Any] = []
        self.waits = True
        self._error = error

    def _do(self, what: Any) -> None:
        if self._error is not None:
            raise self._error
        self.done.append(what)

    def status(self) -> dict[str, Any]:
        self._do("status")
        return {"version": "1"}

    def plan(self) -> tuple[Change, ...]:
        self._do("plan")
        return (Change("peer", "added", "carol"),)

    def reload(self, confirm: int | None) -> None:
        self._do(("reload", confirm))

    def confirm(self) -> bool:
        self._do("confirm")
        return self.waits

    def explain(
        self, client: str, to: Address, proto: int | None, port: int | None, *, incoming: bool
    ) -> dict[str, Any] | None:
        self._do((client, str(to), proto, port, *(["incoming"] if incoming else [])))
        return {"agree": True} if client == "alice" else None


def ask(fake: Fake, method: str, caller: Caller = ROOT, **parameters: Any) -> Any:
    name = method if "." in method else f"{INTERFACE}.{method}"
    return Service(fake).answer(Call(name, parameters), caller)


def error(fake: Fake, method: str, caller: Caller = ROOT, **parameters: Any) -> tuple[str, dict[str, Any]]:
    with pytest.raises(VarlinkError) as raised:
        ask(fake, method, caller, **parameters)
    return raised.value.name, raised.value.parameters


class TestCalls:
    def test_status_answers_what_the_daemon_says(self) -> None:
        assert ask(Fake(), "Status", READER) == {"status": {"version": "1"}}

    def test_status_that_cannot_be_read_fails_with_the_reason(self) -> None:
        assert error(Fake(KernelError("wgd0", "is gone")), "Status") == (
            f"{INTERFACE}.Failed",
            {"reason": "wgd0: is gone"},
        )

    def test_plan_lists_the_changes(self) -> None:
        assert ask(Fake(), "Plan", READER) == {"changes": [{"object": "peer", "action": "added", "detail": "carol"}]}

    @pytest.mark.parametrize("confirm", [None, 1, 86400])
    def test_reload_is_done_with_its_time(self, confirm: int | None) -> None:
        fake = Fake()
        assert ask(fake, "Reload", **({} if confirm is None else {"confirm": confirm})) == {}
        assert fake.done == [("reload", confirm)]

    @pytest.mark.parametrize("method", ["Reload", "Plan"])
    def test_what_is_refused_comes_with_every_reason(self, method: str) -> None:
        problems = [Problem("server.yaml", line, "peers", "is wrong") for line in (3, 7)]
        assert error(Fake(ConfigError(problems)), method) == (
            f"{INTERFACE}.Refused",
            {"reasons": ["server.yaml:3: peers: is wrong", "server.yaml:7: peers: is wrong"]},
        )

    @pytest.mark.parametrize("confirm", [0, -1, 86401, True, 1.5, "30", [30]])
    def test_a_time_that_is_none_is_refused_and_nothing_is_done(self, confirm: Any) -> None:
        fake = Fake()
        assert error(fake, "Reload", confirm=confirm) == (f"{SERVICE}.InvalidParameter", {"parameter": "confirm"})
        assert fake.done == []

    def test_confirm_says_whether_there_was_anything_to_confirm(self) -> None:
        fake = Fake()
        assert ask(fake, "Confirm") == {}
        fake.waits = False
        assert error(fake, "Confirm") == (f"{INTERFACE}.NothingToConfirm", {})

    @pytest.mark.parametrize(
        ("parameters", "asked"),
        [
            ({"destination": "10.20.0.1"}, ("10.20.0.1", None, None)),
            ({"destination": "10.20.0.1", "protocol": "tcp", "port": 443}, ("10.20.0.1", 6, 443)),
            ({"destination": "10.20.0.1", "protocol": "icmp"}, ("10.20.0.1", 1, None)),
            ({"destination": "fd20::1", "protocol": "icmp"}, ("fd20::1", 58, None)),
            ({"destination": "fd20::1", "protocol": "47", "port": None}, ("fd20::1", 47, None)),
            ({"destination": "10.20.0.1", "incoming": False}, ("10.20.0.1", None, None)),
            ({"destination": "10.20.0.1", "incoming": True}, ("10.20.0.1", None, None, "incoming")),
        ],
        ids=str,
    )
    def test_explain_asks_what_was_meant(self, parameters: dict[str, Any], asked: tuple[Any, ...]) -> None:
        fake = Fake()
        assert ask(fake, "Explain", READER, client="alice", **parameters) == {"explanation": {"agree": True}}
        assert fake.done == [("alice", *asked)]

    @pytest.mark.parametrize(
        ("parameter", "value"),
        [
            *(("client", value) for value in (None, 5, ["alice"])),
            *(("destination", value) for value in (None, 5, "", "10.0.0.0/8", "here", "fe80::1%eth0")),
            *(("protocol", value) for value in (6, "", "TCP", "256", "-1", "٣", ["tcp"])),
            *(("port", value) for value in (0, 65536, "80", True, 1.5)),
            *(("incoming", value) for value in (0, 1, "true")),
        ],
    )
    def test_explain_refuses_what_is_none_of_it(self, parameter: str, value: Any) -> None:
        fake = Fake()
        usual = {"client": "alice", "destination": "10.20.0.1", "protocol": "tcp", "port": 1}
        refused = error(fake, "Explain", READER, **{**usual, parameter: value})
        assert refused == (f"{SERVICE}.InvalidParameter", {"parameter": parameter})
        assert fake.done == []

    @pytest.mark.parametrize("protocol", [None, "icmp", "gre", "47"])
    def test_explain_refuses_a_port_where_there_is_none(self, protocol: str | None) -> None:
        wrong = {"client": "alice", "destination": "10.20.0.1", "protocol": protocol, "port": 80}
        assert error(Fake(), "Explain", **wrong) == (f"{SERVICE}.InvalidParameter", {"parameter": "port"})

    def test_explain_names_a_client_that_there_is_not(self) -> None:
        answer = error(Fake(), "Explain", client="nobody", destination="10.20.0.1")
        assert answer == (f"{INTERFACE}.UnknownClient", {"client": "nobody"})

    @pytest.mark.parametrize("method", ["Reload", "Confirm"])
    def test_who_may_only_read_changes_nothing(self, method: str) -> None:
        fake = Fake()
        assert error(fake, method, READER) == (f"{SERVICE}.PermissionDenied", {})
        assert fake.done == []

    @pytest.mark.parametrize("method", ["Status", "Plan", "Reload", "Confirm", f"{SERVICE}.GetInfo"])
    def test_a_parameter_that_nobody_knows_is_refused(self, method: str) -> None:
        fake = Fake()
        assert error(fake, method, colour="red") == (f"{SERVICE}.InvalidParameter", {"parameter": "colour"})
        assert fake.done == []

    @given(st.sampled_from(sorted(Service(Fake())._methods)), st.dictionaries(st.text(), JSON, max_size=3), JSON)
    def test_parameters_of_any_kind_are_answered_or_refused(
        self, method: str, parameters: dict[str, Any], confirm: Any
    ) -> None:
        fake = Fake()
        for given_parameters in (parameters, {"confirm": confirm}, {"interface": confirm}):
            with contextlib.suppress(VarlinkError):
                Service(fake).answer(Call(method, given_parameters), ROOT)
        assert all(is_sound(done) for done in fake.done)


def is_sound(done: Any) -> bool:
    """Tell whether the daemon was asked for something that it can do."""
    return done in ("status", "plan", "confirm", ("reload", None)) or 1 <= done[1] <= 86400


class TestDescription:
    def test_info_names_the_interfaces(self) -> None:
        info = ask(Fake(), f"{SERVICE}.GetInfo", READER)
        assert info["product"] == "wgd-server"
        assert info["interfaces"] == [SERVICE, INTERFACE]

    @pytest.mark.parametrize("interface", [SERVICE, INTERFACE])
    def test_every_interface_is_described_with_exactly_its_methods(self, interface: str) -> None:
        text = ask(Fake(), f"{SERVICE}.GetInterfaceDescription", READER, interface=interface)["description"]
        assert re.search(rf"^interface {re.escape(interface)}$", text, re.MULTILINE)
        described = {f"{interface}.{name}" for name in re.findall(r"^method (\w+)", text, re.MULTILINE)}
        assert described == {name for name in Service(Fake())._methods if name.startswith(f"{interface}.")}

    def test_another_interface_is_not_found(self) -> None:
        wanted = (f"{SERVICE}.InterfaceNotFound", {"interface": "io.other"})
        assert error(Fake(), f"{SERVICE}.GetInterfaceDescription", interface="io.other") == wanted
        assert error(Fake(), "io.other.Method") == wanted

    @pytest.mark.parametrize("parameters", [{}, {"interface": 5}])
    def test_an_interface_must_be_named(self, parameters: dict[str, Any]) -> None:
        name, _ = error(Fake(), f"{SERVICE}.GetInterfaceDescription", **parameters)
        assert name == f"{SERVICE}.InvalidParameter"

    def test_another_method_is_not_found(self) -> None:
        assert error(Fake(), "Shutdown") == (f"{SERVICE}.MethodNotFound", {"method": f"{INTERFACE}.Shutdown"})

    @pytest.mark.parametrize("text", [SERVER, CLIENT, VARLINK_SERVICE], ids=["server", "client", "varlink"])
    def test_a_description_is_in_the_interface_definition_language(self, text: str) -> None:
        """By varlink.org's grammar, as far as we use it."""
        scalar = r"\??(?:\[\])?(?:bool|int|float|string|[A-Z][A-Za-z0-9]*)"
        struct = rf"\((?:[a-z][a-z0-9_]*:{scalar}(?:,[a-z][a-z0-9_]*:{scalar})*)?\)"
        member = rf"(?:type[A-Z]\w*{struct}|error[A-Z]\w*{struct}|method[A-Z]\w*{struct}->{struct})"
        bare = re.sub(r"\s+", "", re.sub(r"#.*", "", text))
        assert re.fullmatch(rf"interface[a-z]+(?:\.[A-Za-z]+)+?(?:{member})+", bare)
        named = set(re.findall(r"[:\]]([A-Z][A-Za-z]*)", bare))
        assert named <= set(re.findall(r"^type (\w+)", text, re.MULTILINE))


class FakeClient:
    """A connection's daemon that does what it is asked, or refuses with `error`."""

    def __init__(self, error: WgdError | None = None) -> None:
        self.reloads = 0
        self._error = error

    def status(self) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        return {"name": "office"}

    def reload(self) -> None:
        if self._error is not None:
            raise self._error
        self.reloads += 1


def ask_client(fake: FakeClient, method: str, caller: Caller = ROOT, **parameters: Any) -> Any:
    return ClientService(fake).answer(Call(f"{CLIENT_INTERFACE}.{method}", parameters), caller)


class TestClient:
    def test_status_answers_what_the_daemon_says(self) -> None:
        assert ask_client(FakeClient(), "Status", READER) == {"status": {"name": "office"}}

    def test_reload_is_done(self) -> None:
        fake = FakeClient()
        assert ask_client(fake, "Reload") == {}
        assert fake.reloads == 1

    def test_who_may_only_read_reloads_nothing(self) -> None:
        fake = FakeClient()
        with pytest.raises(VarlinkError, match="PermissionDenied"):
            ask_client(fake, "Reload", READER)
        assert fake.reloads == 0

    @pytest.mark.parametrize(("method", "name"), [("Status", "Failed"), ("Reload", "Refused")])
    def test_what_goes_wrong_is_answered_with_the_reason(self, method: str, name: str) -> None:
        with pytest.raises(VarlinkError) as raised:
            ask_client(FakeClient(KernelError("wgd-office", "is gone")), method)
        assert raised.value.name == f"{CLIENT_INTERFACE}.{name}"
        assert "wgd-office: is gone" in str(raised.value.parameters)

    def test_is_described_with_exactly_its_methods(self) -> None:
        described = {f"{CLIENT_INTERFACE}.{name}" for name in re.findall(r"^method (\w+)", CLIENT, re.MULTILINE)}
        service = ClientService(FakeClient())
        assert described == {name for name in service._methods if name.startswith(f"{CLIENT_INTERFACE}.")}
