"""HAProxy, 2.6 or newer: one file, no Lua; weights can be changed live over its socket."""

from __future__ import annotations

from melange.deploy.pools import Pool
from melange.deploy.targets.gateways.gateway import Gateway, Text, gateway_target
from melange.deploy.targets.gateways.routes import STEP, TURNS, Route
from melange.units import KIB

_NAME = "haproxy.cfg"
# Room for the head in a buffer [bytes]: longer heads are rejected, and each request in flight occupies a buffer.
_HEADERS_BYTES = 32 * KIB

_ABOUT = f"""\
Run: haproxy -W -f {_NAME} (check: haproxy -c -f {_NAME}). Needs HAProxy 2.6 or newer.

A request waits until its body is complete. Its length and its max_tokens (or max_completion_tokens) select its route.
Weighted round robin over {TURNS} turns assigns the requests of a route to types: each gets its share to within 5
requests at any time, over all threads. Inside a type, the replica with the fewest connections takes the request.
Replicas that fail /health, or two connections in a row, are ejected until they answer again; while all replicas of a
type are down, the other types take over. A request is retried on another replica only before the first byte of an
answer.
"""

_TEXT = Text("""\
@comments

global
    # Bodies are read whole for their size, and kept for retries. Connections: as many as ulimit -n allows.
    tune.bufsize @bufsize
    # This socket changes the weights below at runtime, for all later requests:
    #   echo "experimental-mode on; set var proc.@example int(5000)" | socat stdio /run/haproxy/admin.sock
    #stats socket /run/haproxy/admin.sock mode 660 level admin
@variables

defaults
    mode http
    log stdout format raw daemon notice
    # Without this the first token of a stream may wait for a full packet.
    option http-no-delay
    option http-buffer-request
    option forwardfor
    # Abort a request when its client disconnects.
    option abortonclose
    option redispatch 1
    retries 3
    # empty-response needs a buffer (tune.bufsize) for each request until its answer begins. Without it that memory is
    # saved, but the requests on a replica that dies are lost.
    retry-on conn-failure empty-response
    timeout connect 2s
    # For headers and body: slow clients do not hold a connection.
    timeout http-request 30s
    timeout http-keep-alive 60s
    timeout queue 60s
    # Between two bytes of an answer, the first token included.
    timeout client 600s
    timeout server 600s
    option httpchk GET /health
    http-check expect status 200
    default-server inter 2s fastinter 500ms fall 2 rise 2 observe layer4 error-limit 2 on-error mark-down
    # HAProxy starts even if a replica's name cannot be resolved yet.
    default-server init-addr last,libc,none resolvers system resolve-prefer ipv4

resolvers system
    parse-resolv-conf
    hold valid 10s

frontend melange
    bind @address
    http-request deny deny_status 413 if { req.body_size gt @limit } or { req.body_len gt @limit }

    http-request set-var(txn.bytes) req.body_len
    http-request set-var(txn.limit) req.body,json_query('$.max_completion_tokens','int')
    http-request set-var(txn.limit) req.body,json_query('$.max_tokens','int') if !{ var(txn.limit) -m found }

    # The route: from the largest down, the last one that a request fits.
@route_rules

    # The turn: one counter per route.
    stick-table type integer size @counters store gpc0
    http-request track-sc0 var(txn.route)
    http-request set-var(txn.turn) sc_inc_gpc0(0),mul(@step),mod(@turns)

    # The type: the first whose cumulative parts are above the turn.
@pool_rules
    use_backend %[var(txn.pool)]
@backends
""")

_BACKEND = Text("""
# @title
backend @name
    balance leastconn
    option allbackups
@servers""")


def _files(gateway: Gateway) -> dict[str, str]:
    """HAProxy's configuration file."""
    routes = gateway.routes.routes
    names = [pool.name for pool in gateway.pools]
    variables = [
        f"    set-var proc.{_variable(number, name)} int({upto})"
        for number, route in enumerate(routes, 1)
        for name, upto in zip(names[:-1], route.upto, strict=False)
    ]
    text = _TEXT.substitute(
        comments=gateway.comments(_ABOUT),
        bufsize=gateway.max_body_bytes + _HEADERS_BYTES,
        example=_variable(1, names[0]),
        variables="\n".join(variables),
        address=gateway.address,
        limit=gateway.max_body_bytes,
        route_rules="\n".join(_route_rule(gateway, number, routes[number - 1]) for number in range(len(routes), 0, -1)),
        counters=max(100, 2 * len(routes)),
        step=STEP,
        turns=TURNS,
        pool_rules="\n".join(_pool_rules(names, len(routes))),
        backends="\n".join(_backend(gateway, t) for t in range(len(names))),
    )
    return {_NAME: text}


def _variable(number: int, pool: str) -> str:
    """Name of the variable with a route's cumulative parts up to a pool."""
    return f"route{number}_{pool.replace('-', '_')}"


def _route_rule(gateway: Gateway, number: int, route: Route) -> str:
    conditions = []
    if (longest := gateway.body_bytes(route)) is not None:
        conditions.append(f"{{ var(txn.bytes) -m int le {longest} }}")
    if route.max_tokens is not None:
        conditions.append(f"{{ var(txn.limit) -m int 1:{route.max_tokens} }}")
    rule = f"    http-request set-var(txn.route) int({number})"
    return rule + (f" if {' '.join(conditions)}" if conditions else "")


def _pool_rules(names: list[str], routes: int) -> list[str]:
    """Rules that choose a pool: the last pool is the default, and each earlier pool overrides the later ones."""
    rules = [f"    http-request set-var(txn.pool) str({names[-1]})"]
    for name in reversed(names[:-1]):
        rules += [
            f"    http-request set-var(txn.pool) str({name}) if {{ var(txn.route) -m int {number} }} "
            f"{{ var(txn.turn),sub(proc.{_variable(number, name)}) -m int lt 0 }}"
            for number in range(1, routes + 1)
        ]
    return rules


def _backend(gateway: Gateway, t: int) -> str:
    """A type's replicas, then those of its stand-ins as backups, with health taken from their own backends."""
    pool = gateway.pools[t]
    servers = [f"    server {_server(pool, k)} {replica} check" for k, replica in enumerate(pool.replicas)]
    for other in (gateway.pools[k] for k in gateway.routes.stand_ins[t]):
        servers += [
            f"    server {_server(other, k)} {replica} track {other.name}/{_server(other, k)} backup"
            for k, replica in enumerate(other.replicas)
        ]
    return _BACKEND.substitute(title=pool.title, name=pool.name, servers="\n".join(servers))


def _server(pool: Pool, k: int) -> str:
    return f"{pool.name}-{k}"


TARGET = gateway_target("haproxy", "HAProxy 2.6 or newer, without Lua; weights change while it runs.", _files)
