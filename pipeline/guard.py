"""Who may ask the server, from where, and how often: looked at before the handler of a request is.

    rate     so many requests a second from each address (`max_rate`); first, so that guesses at a token are counted too
    token    `token` may do all, `read_token` only ask, and not what the process is doing
    origin   without a token, a page of another site may neither send nor listen; `cors` names those that may

Without a token, what protects the pipeline is that it listens on this machine alone. A browser on it would be a way in for
any page of the web, so a name that merely points here is refused (DNS rebinding), and so is what another site's page sends.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from multidict import istr

from pipeline.api import operation_of
from pipeline.loopback import is_loopback
from pipeline.web import HttpProblem

if TYPE_CHECKING:
    from pipeline.quantity import Secret

ADDRESSES = 10_000  # whose requests are counted; the one that has been quiet longest is forgotten
LEAST_BURST = 10  # requests that may come at once, however low the rate: a page asks for several things
# `Token` is what clients of InfluxDB say. No scheme that browsers fill in by themselves (Basic): a page of another site would
# be let in by it.
_SCHEMES = {"bearer", "token"}
PREFLIGHT_S = "600"  # how long a browser need not ask again
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

# A header looked up by an istr costs half of one by a str.
_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_HOSTS = 100  # different Host headers that were found right and are remembered
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")


class Guarded(Protocol):
    """What is needed of [server]."""

    @property
    def token(self) -> Secret | None: ...
    @property
    def read_token(self) -> Secret | None: ...
    @property
    def cors(self) -> Sequence[str]: ...
    @property
    def max_rate(self) -> float | None: ...
    @property
    def insecure(self) -> bool: ...


class Guard:
    """Of one server."""

    def __init__(self, settings: Guarded, host: str) -> None:
        self._token = _revealed(settings.token)
        self._read_token = _revealed(settings.read_token)
        self._local = self._token is None and not settings.insecure and is_loopback(host)
        self.public: set[Any] = set()  # handlers that need no token
        self._hosts: set[str] = set()
        self._origins = frozenset(origin.lower() for origin in settings.cors)
        self._rates = Rates(settings.max_rate) if settings.max_rate else None

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def admit(self, request: web.Request) -> web.StreamResponse | None:
        """HttpProblem for one that may not; an answer, where that is all there is to say."""
        if wait := self.hurries(request.remote or ""):
            raise HttpProblem(429, "too many requests from this address", {"Retry-After": str(int(wait) + 1)})
        if self._origins and self._asks_first(request):
            return _preflight(request)
        self.permit(request)
        return None

    def hurries(self, remote: str) -> float:
        """Seconds that this address must wait; 0: none, and its request is counted."""
        return self._rates.wait(remote) if self._rates is not None else 0.0

    def permit(self, request: web.Request) -> None:
        """HttpProblem for one that may not. Looks at nothing but the method, the headers and whose handler it is."""
        if self._token is not None:
            if request.match_info.handler not in self.public:
                self._check_token(request)
        else:
            self._check_origin(request)

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        text = given.strip().encode(errors="surrogateescape")
        # Both are compared, whatever the first one said: how long it takes tells nothing.
        may_all = hmac.compare_digest(text, self._token or b"")
        may_read = hmac.compare_digest(text, self._read_token or b"") and self._read_token is not None
        if scheme.lower() not in _SCHEMES or not (may_all or may_read):
            raise HttpProblem(401, "a bearer token is needed", {"WWW-Authenticate": 'Bearer realm="headwater"'})
        if may_all:
            return
        if request.method not in SAFE_METHODS and not operation_of(request.match_info.handler).reads:
            raise HttpProblem(403, "this token may only read")
        if _of_the_inside(request):
            raise HttpProblem(403, "this takes the token that may do all")

    def _check_origin(self, request: web.Request) -> None:
        headers = request.headers
        if not self._local and _of_the_inside(request) and not is_loopback(request.remote or ""):
            raise HttpProblem(403, "without a token, only this machine is told")
        host = headers.get(hdrs.HOST, "")
        if self._local and host not in self._hosts:
            if not _is_here(host):
                raise HttpProblem(403, "this server answers to localhost and to addresses, not to other names")
            if len(self._hosts) < _HOSTS:
                self._hosts.add(host)
        # A browser keeps another site's page from reading what it asks for, but not from what comes over a WebSocket.
        acts = request.method not in SAFE_METHODS or hdrs.UPGRADE in headers
        if acts and _from_elsewhere(headers, host) and not self._is_allowed(request):
            raise HttpProblem(403, "a page of another site may not send here")

    # --- pages of other sites ---

    def _is_allowed(self, request: web.Request) -> bool:
        return request.headers.get(hdrs.ORIGIN, "").lower() in self._origins

    def _asks_first(self, request: web.Request) -> bool:
        is_question = request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        return is_question and self._is_allowed(request)

    @property
    def shares(self) -> bool:
        """May pages of another origin read answers?"""
        return bool(self._origins)

    def share(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell the browser that a page of an allowed origin may read the answer."""
        if not self._origins:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self._is_allowed(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "ETag, Link, Retry-After"


class Rates:
    """Until when each address has used up what it may ask. Bounded: of an address that is forgotten nothing is held."""

    def __init__(self, most: float, clock: Callable[[], float] = time.monotonic, addresses: int = ADDRESSES) -> None:
        self.each = 1 / most
        self.burst = max(1.0, LEAST_BURST / most)  # seconds' worth
        self.addresses = addresses
        self.clock = clock
        self.until: dict[str, float] = {}  # the one that asked last stands last

    def wait(self, address: str) -> float:
        """Seconds until it may ask; 0: now."""
        whose, now = network(address), self.clock()
        until = max(self.until.pop(whose, now), now) + self.each
        early = until - now - self.burst
        # A hair over is rounding.
        if early > 1e-9:
            until -= self.each  # what is turned away does not count
        self.until[whose] = until
        if len(self.until) > self.addresses:
            del self.until[next(iter(self.until))]
        return early if early > 1e-9 else 0.0


def network(address: str) -> str:
    """Whose address it is: of IPv6 a household has 2**64."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))


def _revealed(token: Secret | None) -> bytes | None:
    return token.reveal().encode() if token else None


def _of_the_inside(request: web.Request) -> bool:
    return operation_of(request.match_info.handler).inside


def _preflight(request: web.Request) -> web.Response:
    """A browser's question whether a page may send what it is about to; it carries no token."""
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD, POST",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
        hdrs.ACCESS_CONTROL_MAX_AGE: PREFLIGHT_S,
    }
    return web.Response(status=204, headers=headers)


def _is_here(host: str) -> bool:
    """No name that somebody's DNS can point to this machine: localhost, an address, or none (not a browser)."""
    match = _HOST.fullmatch(host)
    name = match[1].lower() if match else host
    if name in ("", "localhost", "127.0.0.1") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _from_elsewhere(headers: Mapping[str, str], host: str) -> bool:
    """A browser says that a page of another origin made it send this; other clients say neither."""
    site = headers.get(_SEC_FETCH_SITE)
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get(hdrs.ORIGIN)
    return origin is not None and urlsplit(origin).netloc != host
