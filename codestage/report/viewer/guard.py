"""Who may see the page: whoever has the token, from this machine, and nothing on the page may reach out."""

import hashlib
import secrets
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost")
"""Names of this machine that a request may use. A page elsewhere that points a name of its own at
127.0.0.1 sends that name. The port may be another one: that of a forwarded connection."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFUSED = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>codestage view: no access</title></head>
<body><main><h1>This page needs its link</h1>
<p>Open the whole address that <code>codestage view</code> printed, with its token. Each start makes a new one.</p>
</main></body></html>
"""


class Guard:
    """Lets a request through that asks this machine by its name and brings the token.

    `/?token=…` puts the token into a cookie that no script can read and no other site can send, and
    leads to `/`, so that it stands in no address. `once` are tokens that open the page a single time.
    """

    def __init__(self, app: ASGIApp, token: str, once: set[str]) -> None:
        self._app, self._token, self._once = app, token, once
        # Cookies know no ports: two viewers on this machine must not overwrite each other's.
        self._cookie = "codestage-" + hashlib.sha256(token.encode()).hexdigest()[:12]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *(h for h in more if h[0] not in own)]
            await send(message)

        if scope["type"] != "http":
            return  # nothing else is spoken here
        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead of the page; None lets the request through."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host.partition(":")[0] not in NAMES:
            return JSONResponse({"error": "this page answers to 127.0.0.1 and localhost only"}, 403)
        if scope["method"] != "GET":
            return JSONResponse({"error": "only GET is answered"}, 405, {"Allow": "GET"})
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] == "/" and given and self._opens(given[0]):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return answer
        if self._same(self._brought(headers.get(b"cookie", ""))):
            return None
        if scope["path"].startswith("/api/"):
            return JSONResponse({"error": "no access: open the link that `codestage view` printed"}, 403)
        return HTMLResponse(REFUSED, 403)

    def _opens(self, token: str) -> bool:
        if self._same(token):
            return True
        found = token in self._once
        self._once.discard(token)
        return found

    def _same(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.encode())

    def _brought(self, cookie: str) -> str:
        """The token, whatever cookies of other programs on this machine stand beside it: cookies know no ports."""
        return cookie_parser(cookie).get(self._cookie, "")
