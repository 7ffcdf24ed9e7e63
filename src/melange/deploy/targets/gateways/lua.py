"""The choice of a replica type in Lua, for nginx and Envoy."""

from __future__ import annotations

from melange.deploy.targets.gateways.gateway import Gateway, Text
from melange.deploy.targets.gateways.routes import STEP, TURNS

_TEXT = Text("""\
-- Routes by size: {longest body [bytes], {{highest max_tokens, route}, ...}}, ascending.
local sizes = {
@sizes
}
-- Types by route: {parts of @turns up to and with this type's, type}.
local types = {
@types
}

-- The result of the first entry that is not below the value.
local function find(entries, value)
  for _, entry in ipairs(entries) do
    if value <= entry[1] then return entry[2] end
  end
end

-- The client's limit on its completion. Searching for the key is enough: inside a JSON string its
-- quotes would be escaped.
local function limit_of(body)
  local limit = body:match('"max_completion_tokens"%s*:%s*(%d+)') or body:match('"max_tokens"%s*:%s*(%d+)')
  limit = tonumber(limit) or 0
  return limit > 0 and limit or math.huge
end

local function route_of(body)
  return find(find(sizes, #body), limit_of(body))
end

-- The order repeats after @turns turns, spreads each type over them, and gives each exactly its parts.
local function type_of(route, turn)
  return find(types[route], (turn % @turns) * @step % @turns + 1)
end
""")


def choice(gateway: Gateway) -> str:
    """The tables of a plan, and the functions ``route_of(body)`` and ``type_of(route, turn)``."""
    sizes: dict[str, list[str]] = {}
    for number, route in enumerate(gateway.routes.routes, 1):
        longest = gateway.body_bytes(route)
        limit = "math.huge" if route.max_tokens is None else str(route.max_tokens)
        sizes.setdefault("math.huge" if longest is None else str(longest), []).append(f"{{{limit}, {number}}}")
    names = [pool.name for pool in gateway.pools]
    types = [
        ", ".join(
            f'{{{upto}, "{name}"}}' for upto, part, name in zip(route.upto, route.parts, names, strict=True) if part
        )
        for route in gateway.routes.routes
    ]
    return _TEXT.substitute(
        sizes="\n".join(f"  {{{longest}, {{{', '.join(limits)}}}}}," for longest, limits in sizes.items()),
        types="\n".join(f"  {{{entries}}}, -- route {number}" for number, entries in enumerate(types, 1)),
        turns=TURNS,
        step=STEP,
    )
