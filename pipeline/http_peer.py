"""HTTP towards a peer, as sinks and sources that ask need it: what an answer means for a delivery, errors in short."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from pipeline.component import Context, Outcome

if TYPE_CHECKING:
    from aiohttp import ClientResponse

AGAIN = {408, 425, 429}  # refusals that pass
LONGEST_REASON = 200  # characters of a peer's answer that are kept


def check_url(url: str, context: Context, setting: str = "url", such_as: str = "https://example.org/api/sync") -> str:
    """The address as it may be shown: without user, password and query. A wrong one is reported."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        context.problem(setting, f'must be an address such as "{such_as}"')
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


async def answered(response: ClientResponse) -> Outcome:
    """How a delivery ended that was answered so."""
    text = (await response.content.read(2 * LONGEST_REASON)).decode(errors="replace")
    return outcome(response.status, response.headers.get("Retry-After"), text)


def outcome(status: int, retry_after: str | None, text: str) -> Outcome:
    """The same of an answer's parts: 2xx is taken; 408, 425, 429, 5xx and redirects are tried again."""
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
