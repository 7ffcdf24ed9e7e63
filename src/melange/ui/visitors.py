"""Access control of the page: the cookie with the token, and rejection of requests from other sites."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from melange.present.pages.html import escape
from melange.serve.guard import is_same

COOKIE = "melange_ui"
# A header that another site's page cannot send without a preflight request, which is never granted.
PAGE_HEADER = "x-melange-page"
LOG_IN = "/login"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def cookie_of(token: str) -> str:
    """The value that the browser stores instead of the token."""
    return hmac.new(token.encode(), b"melange ui", hashlib.sha256).hexdigest()


def is_known(request: Request, token: str) -> bool:
    """Whether a request has the token: in the cookie of the log-in, or as a bearer token."""
    if not token:
        return True
    bearer = request.headers.get("authorization", "")
    return is_same(request.cookies.get(COOKIE, ""), cookie_of(token)) or is_same(bearer, f"Bearer {token}")


def is_from_elsewhere(request: Request) -> bool:
    """Whether the request comes from another site's page, according to the browser."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        # A link from another site opens the page itself; this changes nothing and shows nothing to that site.
        return not (request.headers.get("sec-fetch-mode") == "navigate" and request.method == "GET")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


def check_visitors(app: FastAPI, token: str) -> None:
    """Make an application reject requests without the token or from other sites, and send safe headers."""

    @app.middleware("http")
    async def checked(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Reject a request, or answer it."""
        path = request.url.path
        if is_from_elsewhere(request) or (path.startswith("/api/") and PAGE_HEADER not in request.headers):
            response: Response = JSONResponse({"detail": "only the page itself may send this request"}, 403)
        elif path != LOG_IN and not path.startswith("/static/") and not is_known(request, token):
            is_page = path == "/" and request.method == "GET"
            response = log_in_page(str(request.url.query)) if is_page else JSONResponse({"detail": "log in first"}, 401)
        else:
            response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def log_in_page(query: str, fault: str = "") -> HTMLResponse:
    """The form that asks for the token; ``query`` is the state to open afterwards."""
    wrong = f'<p class="fault" role="alert">{escape(fault)}</p>' if fault else ""
    content = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Melange: log in</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="/static/ui.css"></head><body class="login"><main><h1>Melange</h1>'
        f'<form method="post" action="{LOG_IN}?{escape(query)}">{wrong}<label for="token">Token</label>'
        '<input type="password" id="token" name="token" autocomplete="current-password" required autofocus>'
        '<button type="submit">Log in</button></form></main></body></html>'
    )
    return HTMLResponse(content, 401)
