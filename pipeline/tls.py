"""TLS with a peer: whom to trust, and the certificate to show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from pipeline.component import Context, Settings

if TYPE_CHECKING:
    import ssl


class TlsSettings(Settings, frozen=True, kw_only=True):
    ca: Annotated[
        Path | None, Meta(description="Certificates that are trusted, PEM. Absent: those of this system.")
    ] = None
    certificate: Annotated[Path | None, Meta(description="The certificate to show the peer, PEM.")] = None
    key: Annotated[Path | None, Meta(description="Its key. Absent: it stands in the certificate's file.")] = None
    verify: Annotated[
        bool, Meta(description="Check the peer's certificate and name. Without, anyone can stand in between.")
    ] = True


def check(settings: TlsSettings, context: Context, setting: str = "tls") -> None:
    """Report what is wrong with the settings as such; files are looked at when one connects."""
    if settings.key is not None and settings.certificate is None:
        context.problem(f"{setting}.key", "has no certificate; name it: certificate = …")
    if settings.ca is not None and not settings.verify:
        context.problem(f"{setting}.ca", "is not asked with verify = false; leave one of the two out")


def client_context(settings: TlsSettings | None, folder: Path) -> ssl.SSLContext:
    """What a connection is made with; paths start at `folder`. None: this system's certificates are trusted.

    OSError names the file that cannot be used. It reads files: call it when connecting, so that renewed ones are taken.
    """
    import ssl

    settings = settings or TlsSettings()
    made = ssl.create_default_context()
    if not settings.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if settings.ca is not None:
        made = _trusting(folder / settings.ca)
    _show(made, settings, folder)
    return made


def server_context(settings: TlsSettings | None, folder: Path) -> ssl.SSLContext:
    """What peers are let in with: our certificate, and where `ca` is set, only those who show one of it.

    OSError names the file that cannot be used.
    """
    import ssl

    assert settings is not None and settings.certificate is not None  # noqa: PT018 - `check` of the source has seen to it
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _show(made, settings, folder)
    if settings.ca is not None:
        try:
            made.load_verify_locations(folder / settings.ca)
        except OSError as error:
            raise OSError(f"tls: {folder / settings.ca}: {error.strerror or error}") from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _show(made: ssl.SSLContext, settings: TlsSettings, folder: Path) -> None:
    """Our own certificate, to the peer."""
    if settings.certificate is None:
        return
    certificate = folder / settings.certificate
    try:
        made.load_cert_chain(certificate, folder / settings.key if settings.key else None)
    except OSError as error:
        raise OSError(f"tls: {certificate}: {error.strerror or error}") from error


def _trusting(ca: Path) -> ssl.SSLContext:
    """Only what this file holds."""
    import ssl

    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise OSError(f"tls: {ca}: {error.strerror or error}") from error
