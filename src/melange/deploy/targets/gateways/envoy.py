"""Envoy: one static file; a Lua filter chooses the type, and each type's replicas are a cluster."""

from __future__ import annotations

from typing import Any

from melange.deploy.as_yaml import yaml_text
from melange.deploy.pools import HostPort
from melange.deploy.targets.gateways.gateway import Gateway, gateway_target
from melange.deploy.targets.gateways.lua import choice
from melange.deploy.targets.gateways.routes import TURNS

_NAME = "envoy.yaml"
_HEADER = "x-melange-type"
# Each worker counts turns separately: Envoy's Lua shares nothing between workers.
_HANDLER = f"""
local turns = {{}}

function envoy_on_request(request)
  local held = request:body()
  local body = held and held:getBytes(0, held:length()) or ""
  local route = route_of(body)
  turns[route] = (turns[route] or -1) + 1
  request:headers():replace("{_HEADER}", type_of(route, turns[route]))
end
"""

_ABOUT = f"""\
Run: envoy -c {_NAME} (check: envoy --mode validate -c {_NAME}).

A request waits until its body is complete. Its length and its max_tokens (or max_completion_tokens) select its route,
and a Lua filter selects the type, in the header {_HEADER}, which overrides what a client sends. Weighted round robin
over {TURNS} turns assigns the requests of a route to types: each gets its share to within 5 requests at any time, in
each worker thread (--concurrency). Inside a type, the replica with fewer requests of two random ones takes the request.
Replicas that fail /health, or two requests in a row, are ejected until they are healthy again; while all replicas of a
type are down, the other types take over. A request is retried on another replica only before the first byte of an
answer.
"""

_Message = dict[str, Any]
_TYPE = "type.googleapis.com/envoy."


def _files(gateway: Gateway) -> dict[str, str]:
    """Envoy's configuration file."""
    content = {
        "static_resources": {
            "listeners": [_listener(gateway)],
            "clusters": [_cluster(gateway, t) for t in range(len(gateway.pools))],
        },
    }
    return {_NAME: f"{gateway.comments(_ABOUT)}\n\n{yaml_text([content])}"}


def _listener(gateway: Gateway) -> _Message:
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "melange",
        "codec_type": "AUTO",
        "use_remote_address": True,
        # Slow clients must not occupy a connection.
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "stream_idle_timeout": "600s",
        "common_http_protocol_options": {"idle_timeout": "60s", "headers_with_underscores_action": "REJECT_REQUEST"},
        "normalize_path": True,
        "route_config": {"name": "melange", "virtual_hosts": [_virtual_host()]},
        "http_filters": [
            {
                "name": "lua",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": choice(gateway) + _HANDLER},
                },
            },
            {"name": "router", "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"}},
        ],
    }
    return {
        "name": "melange",
        "address": _address(gateway.host, gateway.port),
        # Longest body that is buffered; longer bodies are rejected with 413.
        "per_connection_buffer_limit_bytes": gateway.max_body_bytes,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _virtual_host() -> _Message:
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": _HEADER,
            # Streams have no time limit, but may only be silent for as long as the first token may take.
            "timeout": "0s",
            "idle_timeout": "600s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
                "retry_host_predicate": [
                    {
                        "name": "previous_hosts",
                        "typed_config": {
                            "@type": f"{_TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
                "host_selection_retry_max_attempts": 20,
                "retry_priority": {
                    "name": "previous_priorities",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                        "update_frequency": 2,
                    },
                },
            },
        },
        "request_headers_to_remove": [_HEADER],
    }
    return {"name": "melange", "domains": ["*"], "routes": [route]}


def _cluster(gateway: Gateway, t: int) -> _Message:
    """The replicas of a type, followed by those of its stand-ins, best first."""
    pools = [gateway.pools[k] for k in (t, *gateway.routes.stand_ins[t])]
    return {
        "name": pools[0].name,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "lb_policy": "LEAST_REQUEST",
        # A failed replica gets no requests, even if many fail, and at once: by default, workers learn of it up to a
        # second later.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "2s",
                "no_traffic_interval": "2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 2,
                "http_health_check": {"path": "/health"},
            }
        ],
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
        "circuit_breakers": _limits(),
        "load_assignment": {
            "cluster_name": pools[0].name,
            "endpoints": [
                {"priority": place, "lb_endpoints": [_endpoint(replica) for replica in pool.replicas]}
                for place, pool in enumerate(pools)
            ],
            # One healthy replica keeps all of a type's requests: by default, a share is moved if fewer than 72 % are
            # healthy.
            "policy": {"overprovisioning_factor": 1_000_000},
        },
    }


def _limits() -> _Message:
    """Streams are long and numerous, and a failed replica causes many retries: the defaults 1024 and 3 are too low."""
    most = 20_000
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"thresholds": [dict.fromkeys(names, most)]}


def _endpoint(replica: HostPort) -> _Message:
    return {"endpoint": {"address": _address(replica.host, replica.port)}}


def _address(host: str, port: int) -> _Message:
    return {"socket_address": {"address": host, "port_value": port}}


TARGET = gateway_target("envoy", "Envoy with a Lua filter, as one static file.", _files)
