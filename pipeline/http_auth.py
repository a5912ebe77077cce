"""How a request says who sends it: an OAuth2 token that is renewed, a signature over what is sent."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pipeline.component import Settings
from pipeline.quantity import Secret

EARLY_S = 60.0  # before a token ends a new one is asked for; of a short-lived one a tenth of its life
UNKNOWN_LIFE_S = 300.0  # of a token that does not say how long it holds
SIGNED = "Headwater-Timestamp", "Headwater-Key", "Headwater-Signature"


class OAuthSettings(Settings, frozen=True, kw_only=True):
    token_url: Annotated[str, Meta(description="Where a token is asked for.")]
    client_id: Annotated[str, Meta(description="The name of this client.")]
    client_secret: Annotated[Secret, Meta(description="Its secret.")]
    scope: Annotated[str | None, Meta(description="What the token is to allow.")] = None
    audience: Annotated[str | None, Meta(description="Whom the token is for, where the provider asks for it.")] = None
    send: Annotated[
        Literal["header", "body"], Meta(description="Where the provider expects client_id and client_secret.")
    ] = "header"


class SignSettings(Settings, frozen=True, kw_only=True):
    key: Annotated[str, Meta(description="The name of the secret, for a receiver that knows several.")]
    secret: Annotated[Secret, Meta(description="What both sides know.")]


class NoToken(Exception):
    """The provider gave none; the text says why, without anything secret."""


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None  # some send it as text


class OAuth:
    """Client credentials (RFC 6749, 4.4): a token, kept until shortly before its end or until it is turned down.

    `post` sends a form, with these headers, to the provider: status and body of the answer.
    """

    def __init__(
        self,
        settings: OAuthSettings,
        post: Callable[[str, dict[str, str], dict[str, str]], Awaitable[tuple[int, bytes]]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.post = post
        self.now = now
        self._token: str | None = None
        self._renew_at = 0.0

    async def token(self) -> str:
        if self._token is None or self.now() >= self._renew_at:
            self._token = None
            self._token, lasts = await self._asked()
            self._renew_at = self.now() + lasts - min(EARLY_S, lasts / 10)
        return self._token

    def turned_down(self) -> None:
        """The peer did not take it: the next one is new."""
        self._token = None

    async def _asked(self) -> tuple[str, float]:
        given = self.settings
        form = {"grant_type": "client_credentials"}
        form |= {name: value for name in ("scope", "audience") if (value := getattr(given, name))}
        headers = {"Accept": "application/json"}
        if given.send == "body":
            form |= {"client_id": given.client_id, "client_secret": given.client_secret.reveal()}
        else:
            headers["Authorization"] = basic(given.client_id, given.client_secret.reveal(), quoted=True)
        status, body = await self.post(given.token_url, form, headers)
        if status != 200:
            raise NoToken(f"gave no token: HTTP {status}{_error(body)}")
        try:
            granted = msgspec.json.decode(body, type=_Granted)
            lasts = UNKNOWN_LIFE_S if granted.expires_in is None else float(granted.expires_in)
        except ValueError:
            raise NoToken("gave no token: its answer is not understood") from None
        if not granted.access_token.isprintable():  # it becomes a header
            raise NoToken("gave no token: its answer is not understood")
        return granted.access_token, lasts


class _Failed(msgspec.Struct):
    error: str = ""


def _error(body: bytes) -> str:
    """The standard's word for what went wrong: `invalid_client`. What else the answer says might repeat the secret."""
    try:
        error = msgspec.json.decode(body, type=_Failed).error
    except ValueError:
        return ""
    return f": {error[:50]}" if error.replace("_", "").isalnum() else ""


def basic(user: str, password: str, *, quoted: bool = False) -> str:
    """`Authorization` with a name and a password; `quoted` as OAuth2 has it (RFC 6749, 2.3.1)."""
    from base64 import b64encode
    from urllib.parse import quote

    both = [quote(part, safe="") if quoted else part for part in (user, password)]
    return "Basic " + b64encode(":".join(both).encode()).decode()


def signature(settings: SignSettings, key: str, body: bytes, at: int) -> dict[str, str]:
    """The headers that sign a request.

    Headwater-Signature is `v1=` and the HMAC-SHA256, in hex, over the timestamp (s since 1970), a dot, the Idempotency-Key,
    a dot and the body as it is sent. A receiver recomputes it, and refuses an old timestamp.
    """
    text = b"%d.%s.%s" % (at, key.encode(), body)
    made = hmac.new(settings.secret.reveal().encode(), text, hashlib.sha256).hexdigest()
    return dict(zip(SIGNED, (str(at), settings.key, f"v1={made}"), strict=True))
