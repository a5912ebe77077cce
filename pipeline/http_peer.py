"""HTTP towards a peer, as sinks and sources that ask need it: who asks (tokens, certificates, signatures), what an answer
means for a delivery, errors in short and without secrets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from msgspec import Meta

from pipeline import tls as tls_settings
from pipeline.component import Context, Outcome
from pipeline.delivering import DeliveringSettings
from pipeline.http_auth import NoToken, OAuth, OAuthSettings, SignSettings, basic, signature
from pipeline.quantity import Duration, Secret, duration
from pipeline.tls import TlsSettings, client_context

if TYPE_CHECKING:
    from aiohttp import ClientSession

# Refusals that pass: by themselves, or when a person has mended the credentials. No row is to blame for those.
AGAIN = {401, 403, 407, 408, 425, 429}
BLAMES_ROWS = {400, 413, 422}  # of databases: what was sent is wrong, or too much at a time
LONGEST_REASON = 200  # characters of a peer's answer that are kept
LONGEST_ANSWER = 1 << 20  # bytes of a provider's answer
MASKED_FROM = 4  # characters; a shorter secret is none, and would be found everywhere


class HttpSettings(Protocol):
    """What an `HttpPeer` is made of."""

    @property
    def token(self) -> Secret | None: ...
    @property
    def oauth(self) -> OAuthSettings | None: ...
    @property
    def sign(self) -> SignSettings | None: ...
    @property
    def headers(self) -> Mapping[str, Secret]: ...
    @property
    def tls(self) -> TlsSettings | None: ...
    @property
    def timeout(self) -> Duration: ...


class HttpDeliveringSettings(DeliveringSettings, frozen=True, kw_only=True):
    """Settings of every sink that delivers over HTTP."""

    token: Annotated[Secret | None, Meta(description="Sent as `Authorization: Bearer`.")] = None
    oauth: Annotated[
        OAuthSettings | None, Meta(description="A token by OAuth2 client credentials, renewed as need be.")
    ] = None
    sign: Annotated[SignSettings | None, Meta(description="Sign each request by HMAC-SHA256: Headwater-Signature.")] = (
        None
    )
    headers: Annotated[dict[str, Secret], Meta(description="Further headers.")] = {}
    tls: Annotated[TlsSettings | None, Meta(description="Whom to trust, and the certificate to show, with https.")] = (
        None
    )
    timeout: Annotated[Duration, Meta(description="How long an answer may take.")] = duration("30 s")


class Answer(NamedTuple):
    """What a peer said."""

    status: int
    text: str  # the beginning of it
    retry_after: str | None = None

    @property
    def outcome(self) -> Outcome:
        return outcome(self.status, self.retry_after, self.text)

    @property
    def verdict(self) -> Outcome:
        """Of a peer that refuses rows with few statuses: any other refusal is mended by a person, and the rows wait."""
        made = self.outcome
        made.refused = self.status in BLAMES_ROWS
        return made


class Unanswered(Exception):
    """The peer gave no answer; the text says why, without anything secret."""

    @property
    def outcome(self) -> Outcome:
        return Outcome(reason=str(self))


class HttpPeer:
    """One session with a peer, opened when first needed, and anew after an error of the network (so that renewed
    certificates are taken)."""

    def __init__(
        self,
        settings: HttpSettings,
        context: Context,
        *,
        scheme: str = "Bearer",
        user: str | None = None,
        password: Secret | None = None,
    ) -> None:
        """`scheme`: the word before `token`; `user` and `password`: for peers that ask for these."""
        self.settings = settings
        self.authorization = f"{scheme} {settings.token.reveal()}" if settings.token else ""
        if user is not None:
            self.authorization = basic(user, password.reveal() if password else "")
        self.folder = context.folder
        self.oauth: OAuth | None = None
        if settings.tls:
            tls_settings.check(settings.tls, context)
        if settings.oauth:
            check_url(settings.oauth.token_url, context, "oauth.token_url", "https://login.example.org/token")
            self.oauth = OAuth(settings.oauth, self._form)
            if settings.token:
                context.problem("token", "is sent as the same header as the token of oauth; keep one")
        named = {f"headers.{name}": value for name, value in settings.headers.items()}
        for setting, secret in {**named, **({"token": settings.token} if settings.token else {})}.items():
            if not secret.reveal().isprintable():
                context.problem(setting, "must be one line of printable characters")
        found = [*self._all_secrets(), password.reveal() if password else "", self.authorization.partition(" ")[2]]
        self._secrets = [secret for secret in found if len(secret) >= MASKED_FROM]
        self._session: ClientSession | None = None

    def _all_secrets(self) -> list[str]:
        given = self.settings
        secrets = [given.token, given.oauth and given.oauth.client_secret, given.sign and given.sign.secret]
        return [secret.reveal() for secret in (*secrets, *given.headers.values()) if secret]

    async def deliver(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], shown_url: str, key: str = ""
    ) -> Outcome:
        """One request, as the outcome of a delivery."""
        try:
            return (await self.ask(method, url, body, headers, shown_url, key)).outcome
        except Unanswered as error:
            return error.outcome

    async def ask(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], shown_url: str, key: str = ""
    ) -> Answer:
        """One request; the body is what is sent, `key` its Idempotency-Key. A token that is turned down is renewed once."""
        own = {name.lower() for name in self.settings.headers}  # what the user says of a header holds
        headers = {name: value for name, value in headers.items() if name.lower() not in own}
        headers |= {"Idempotency-Key": key} if key else {}
        answer = await self._request(method, url, body, headers, shown_url, key)
        if answer.status == 401 and self.oauth:
            self.oauth.turned_down()
            answer = await self._request(method, url, body, headers, shown_url, key)
        return answer

    async def _request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], shown_url: str, key: str
    ) -> Answer:
        import aiohttp

        try:
            headers = {**headers, **await self._credentials(key, body or b"")}
            session = self._open()
            async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                text = (await response.content.read(2 * LONGEST_REASON)).decode(errors="replace")
                return Answer(response.status, self._masked(text), response.headers.get("Retry-After"))
        except NoToken as error:
            assert self.settings.oauth
            raise Unanswered(f"{shown(self.settings.oauth.token_url)} {error}") from None
        except TimeoutError:
            raise Unanswered(f"{shown_url} did not answer within {self.settings.timeout}") from None
        except (aiohttp.ClientError, OSError) as error:
            await self.close()
            raise Unanswered(self._masked(f"{shown_url}: {short(error)}")) from None

    async def _credentials(self, key: str, body: bytes) -> dict[str, str]:
        """What is made anew for each try."""
        made = {}
        if self.oauth:
            made["Authorization"] = f"Bearer {await self.oauth.token()}"
        if self.settings.sign:
            made |= signature(self.settings.sign, key, body, int(time.time()))
        return made

    async def _form(self, url: str, form: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        """The question for a token. It has no header of ours: the token's provider is someone else."""
        import aiohttp

        try:
            async with self._bare_session() as session, session.post(url, data=form, headers=headers) as response:
                return response.status, await response.content.read(LONGEST_ANSWER)
        except TimeoutError:
            raise NoToken(f"did not answer within {self.settings.timeout}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoToken(f"gave no token: {short(error)}") from None

    def _open(self) -> ClientSession:
        if self._session is None:
            given = self.settings
            headers = {"Authorization": self.authorization} if self.authorization else {}
            self._session = self._bare_session({**headers, **{n: v.reveal() for n, v in given.headers.items()}})
        return self._session

    def _bare_session(self, headers: Mapping[str, str] | None = None) -> ClientSession:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self.settings.timeout.seconds)
        connector = aiohttp.TCPConnector(
            ssl=client_context(self.settings.tls, self.folder) if self.settings.tls else True
        )
        return aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    def _masked(self, text: str) -> str:
        """Without secrets: there are servers that repeat in an error what they were sent."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def check_url(url: str, context: Context, setting: str = "url", such_as: str = "https://example.org/api/sync") -> str:
    """The address as it may be shown: without user, password and query. A wrong one is reported."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        right = False
    if not right:
        context.problem(setting, f'must be an address such as "{such_as}"')
        return ""
    return shown(url)


def shown(url: str) -> str:
    """An address without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def outcome(status: int, retry_after: str | None, text: str) -> Outcome:
    """What an answer means for a delivery: 2xx is taken; what passes or can be mended, and redirects, are tried again."""
    if 200 <= status < 300:
        return Outcome(delivered=True)
    said = " ".join(text.split())[:LONGEST_REASON]
    reason = f"HTTP {status}" + (f": {said}" if said else "")
    if status in AGAIN or status >= 500:
        return Outcome(reason=reason, retry_after=seconds(retry_after))
    # A redirect is a fault of the settings that a person mends: the rows are kept until then.
    return Outcome(refused=status >= 400, reason=reason)


def seconds(retry_after: str | None) -> float | None:
    """Retry-After: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        from datetime import UTC, datetime

        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def short(error: Exception) -> str:
    """A network error in short; some have no text, and some repeat the address."""
    os_error = getattr(error, "os_error", None)
    return str(getattr(os_error, "strerror", None) or error or type(error).__name__)[:LONGEST_REASON]
