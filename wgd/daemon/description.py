"""The interfaces of the control sockets, in varlink's interface definition language."""

from __future__ import annotations

from wgd.host.varlink import SERVICE

INTERFACE = "io.wgd.Server"
CLIENT_INTERFACE = "io.wgd.Client"

SERVER = f"""\
# The gateway that runs here. Whoever may connect may read; Reload and Confirm are for root and the daemon's own user.
interface {INTERFACE}

# `last_handshake` is in seconds since 1970; `endpoint` and `last_handshake` are absent before the first handshake.
# `live`: the last handshake is younger than WireGuard lets a session grow.
type Peer (
  name: string,
  public_key: string,
  allowed_ips: []string,
  endpoint: ?string,
  last_handshake: ?float,
  live: bool,
  rx_bytes: int,
  tx_bytes: int
)

# `up` false, or `listen_port` null: the interface is down, or gone.
type Interface (
  name: string,
  addresses: []string,
  listen_port: ?int,
  mtu: ?int,
  up: bool
)

# `rules` are those of the config, `allow` what they list, `clients` the peers that are granted anything.
type Policy (
  rules: int,
  allow: int,
  clients: int
)

# Packets dropped since the ruleset was loaded: no rule covers them; a client's address from elsewhere.
type Dropped (
  denied: int,
  spoofed: int
)

# The event log since the daemon's start. `lost` are events that gave no line; `unsent` lines are not
# in the journal, which should have them too; `refused` is why the file takes none now.
type EventLog (
  path: string,
  events: int,
  lost: int,
  undecoded: int,
  unresolved: int,
  overruns: int,
  unsent: int,
  refused: ?string
)

# Somebody else's changes since the daemon's start. `action` is restored or failed, `ts` is in seconds since 1970.
type Drift (
  ts: float,
  object: string,
  action: string,
  detail: string
)

# Something else on the host that drops what the gateway allows, or lets flows around it. Each is for a person to read.
type Neighbour (
  where: string,
  effect: string,
  remedy: string
)

# `confirm_seconds`: how long until the gateway goes back to the config before, unless Confirm is called.
type Status (
  version: string,
  started: float,
  interface: Interface,
  authz_mode: string,
  peers: []Peer,
  policy: Policy,
  dropped: Dropped,
  event_log: ?EventLog,
  drift_restored: int,
  drift_failed: int,
  drift: []Drift,
  neighbours: []Neighbour,
  failing: ?string,
  confirm_seconds: ?int
)

# `action` is added, removed or changed; `detail` says the rest to a person.
type Change (
  object: string,
  action: string,
  detail: string
)

# What one of the two says: `verdict` is allow, deny or, where others have changed what decides it, unknown. `rule` is
# the config's rule that allows it.
type Answer (
  verdict: string,
  rule: ?string,
  reasons: []string
)

# `protocol` null: every protocol; `port` null: every port. In observe, both say what enforce would do.
type Explanation (
  client: string,
  public_key: string,
  destination: string,
  protocol: ?string,
  port: ?int,
  incoming: bool,
  authz_mode: string,
  config: Answer,
  kernel: Answer,
  agree: bool,
  neighbours: []Neighbour
)

method Status() -> (status: Status)

# What Reload would change. Changes nothing.
method Plan() -> (changes: []Change)

# Reads the config anew and goes over to it, or changes nothing. With `confirm` (seconds, 1 to 86400) the gateway goes
# back by itself to the last config that needed no confirmation, unless Confirm is called in time.
method Reload(confirm: ?int) -> ()

method Confirm() -> ()

# Whether a client (its name or public key) may begin a flow, by the config and by what the kernel holds. `protocol` is
# a name or IANA's number. With `incoming`, whether the address `destination` may begin one to the client.
method Explain(
  client: string,
  destination: string,
  protocol: ?string,
  port: ?int,
  incoming: ?bool
) -> (explanation: Explanation)

error UnknownClient (client: string)

# The config cannot be used, or the kernel refused a step.
error Refused (reasons: []string)

error NothingToConfirm ()

# The kernel could not be read.
error Failed (reason: string)
"""

CLIENT = f"""\
# One connection of wgd-client. Whoever may connect may read; Reload is for root and the daemon's own user.
interface {CLIENT_INTERFACE}

# `up` false, or `listen_port` null: the interface is down, or gone.
type Interface (
  name: string,
  addresses: []string,
  listen_port: ?int,
  mtu: ?int,
  up: bool
)

# `endpoints` are the config's, `endpoint` the one in use, null until a name was looked up. `last_handshake` is in
# seconds since 1970, null before the first. `live`: it is younger than WireGuard lets a session grow.
type Gateway (
  public_key: string,
  endpoints: []string,
  endpoint: ?string,
  allowed_ips: []string,
  last_handshake: ?float,
  live: bool,
  rx_bytes: int,
  tx_bytes: int
)

# `gateway` null: it is no peer of the interface at the moment. `trouble` is what keeps the endpoint from answering,
# `failing` what of the config cannot be set.
type Status (
  name: string,
  version: string,
  started: float,
  interface: Interface,
  gateway: ?Gateway,
  trouble: ?string,
  failing: ?string
)

method Status() -> (status: Status)

# Reads the config anew and goes over to it, or changes nothing.
method Reload() -> ()

# The config cannot be used, or the kernel refused a step.
error Refused (reasons: []string)

# The kernel could not be read.
error Failed (reason: string)
"""

VARLINK_SERVICE = f"""\
# What every varlink service has.
interface {SERVICE}

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()
"""
