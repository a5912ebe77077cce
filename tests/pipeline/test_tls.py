"""Whom a connection trusts, and what is told when a file is not as it should be."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pipeline.component import Context
from pipeline.frame import KeyTable
from pipeline.tls import TlsSettings, check, client_context


def problems(settings: TlsSettings) -> list[str]:
    context = Context("there", KeyTable())
    check(settings, context)
    return [setting for setting, _ in context.problems]


def test_by_default_the_system_s_certificates_are_asked_and_the_name_too() -> None:
    made = client_context(None, Path())
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_verify_false_asks_nobody() -> None:
    made = client_context(TlsSettings(verify=False), Path())
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_NONE, False)


def test_settings_that_contradict_each_other_are_problems() -> None:
    assert problems(TlsSettings(key=Path("k.pem"))) == ["tls.key"]
    assert problems(TlsSettings(ca=Path("ca.pem"), verify=False)) == ["tls.ca"]
    assert problems(TlsSettings(ca=Path("ca.pem"), certificate=Path("c.pem"), key=Path("k.pem"))) == []


@pytest.mark.parametrize("setting", ["ca", "certificate"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, setting: str) -> None:
    def settings(name: str) -> TlsSettings:
        return TlsSettings(ca=Path(name)) if setting == "ca" else TlsSettings(certificate=Path(name))

    with pytest.raises(OSError, match=r"tls: .*not-there\.pem: No such file"):
        client_context(settings("not-there.pem"), tmp_path)
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(OSError, match=r"tls: .*bad\.pem: "):
        client_context(settings("bad.pem"), tmp_path)
