"""`GET /dashboard`: one page, in one file, that asks the admin listener's own JSON calls. Nothing comes from elsewhere.

The page is told without a token, as a browser has none to bring when it opens one; it has nothing in it, and asks for the
token when a call does. What may run in it is what is in the file: the policy names the hashes of its script and style.
"""

import base64
import hashlib
import re
from importlib.resources import files

from aiohttp import web

from edgecache.ops.daemon import Daemon, Route

_PAGE = files("edgecache.ops").joinpath("dashboard.html").read_text("utf-8")


def _hashed(tag: str) -> str:
    found = re.search(rf"<{tag}>(.*)</{tag}>", _PAGE, re.DOTALL)
    assert found is not None, tag
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hashed('script')}",
        f"style-src {_hashed('style')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def _page(_: Daemon, __: web.Request) -> web.StreamResponse:
    return web.Response(text=_PAGE, headers=HEADERS)


async def _home(_: Daemon, __: web.Request) -> web.StreamResponse:
    """Who opens the listener in a browser. Relative, for a proxy that has it under a path."""
    return web.Response(status=302, headers={"Location": "dashboard"})


ROUTES = (Route("GET", "/", _home, open=True), Route("GET", "/dashboard", _page, open=True))
