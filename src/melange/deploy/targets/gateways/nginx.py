"""nginx with its Lua module (Debian's libnginx-mod-http-lua, or OpenResty): one file."""

from __future__ import annotations

import textwrap

from melange.deploy.targets.gateways.gateway import Gateway, Text, gateway_target
from melange.deploy.targets.gateways.lua import choice
from melange.deploy.targets.gateways.routes import TURNS

_NAME = "nginx.conf"

_ABOUT = f"""\
Run: nginx -c $PWD/{_NAME} (check: nginx -t -c $PWD/{_NAME}). Needs nginx with its Lua module, or OpenResty.

A request waits until its body is complete. Its length and its max_tokens (or max_completion_tokens) select its route.
Weighted round robin over {TURNS} turns assigns the requests of a route to types: each gets its share to within 5
requests at any time, over all workers. Inside a type, the replica with the fewest connections takes the request. A
replica that fails twice is ejected for 5 s (nginx has no active health checks); while all replicas of a type are down,
the other types take over. A request is retried on another replica only before the first byte of an answer. Apply
changed weights with: nginx -s reload.
"""

_TEXT = Text("""\
@comments

# Remove these two lines with OpenResty, or if modules-enabled is already included.
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_module.so;

worker_processes auto;
worker_rlimit_nofile 65536;

events {
    worker_connections 16384;
}

http {
    access_log off;
    server_tokens off;

    # Slow clients and long bodies do not hold a connection.
    client_header_timeout 10s;
    client_body_timeout 30s;
    send_timeout 60s;
    keepalive_timeout 60s;
    client_max_body_size @limit;
    # Bodies stay in memory, for their size and for retries.
    client_body_buffer_size @limit;

    lua_shared_dict turns 1m;
    init_by_lua_block {
@lua

        -- The type that takes this request; one counter per route, shared by all workers.
        function melange_type()
          ngx.req.read_body()
          local route = route_of(ngx.req.get_body_data() or "")
          return type_of(route, ngx.shared.turns:incr(route, 1, -1))
        end
    }
@upstreams

    server {
        listen @address default_server;

        location / {
            set $melange_type "";
            access_by_lua_block { ngx.var.melange_type = melange_type() }
            proxy_pass http://$melange_type;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            # Pass tokens on as they arrive.
            proxy_buffering off;
            proxy_cache off;
            proxy_connect_timeout 2s;
            # Between two bytes of an answer, the first token included.
            proxy_read_timeout 600s;
            proxy_send_timeout 60s;
            # Completions are POSTs: without non_idempotent they would never be retried.
            proxy_next_upstream error timeout non_idempotent;
            proxy_next_upstream_tries 3;
        }
    }
}
""")

_UPSTREAM = Text("""
    # @title
    upstream @name {
        least_conn;
@servers
        keepalive 256;
        keepalive_timeout 30s;
    }""")


def _files(gateway: Gateway) -> dict[str, str]:
    """The configuration file of nginx."""
    text = _TEXT.substitute(
        comments=gateway.comments(_ABOUT),
        limit=gateway.max_body_bytes,
        lua=textwrap.indent(choice(gateway).rstrip(), " " * 8),
        upstreams="\n".join(_upstream(gateway, t) for t in range(len(gateway.pools))),
        address=gateway.address,
    )
    return {_NAME: text}


def _upstream(gateway: Gateway, t: int) -> str:
    """A type's replicas, followed by those of its stand-ins."""
    pool = gateway.pools[t]
    servers = [f"        server {replica} max_fails=2 fail_timeout=5s;" for replica in pool.replicas]
    servers += [
        f"        server {replica} max_fails=2 fail_timeout=5s backup;"
        for k in gateway.routes.stand_ins[t]
        for replica in gateway.pools[k].replicas
    ]
    return _UPSTREAM.substitute(title=pool.title, name=pool.name, servers="\n".join(servers))


TARGET = gateway_target("nginx", "nginx with its Lua module, or OpenResty.", _files)
