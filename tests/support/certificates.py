"""Certificates for tests over TLS."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ADDRESS = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def self_signed(path: Path) -> Path:
    """A certificate of 127.0.0.1, signed by nobody else, with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("server.test")
    built = _builder(name, name, key).add_extension(_ADDRESS, critical=False).add_extension(_AUTHORITY, critical=True)
    path.write_bytes(_pem(built.sign(key, hashes.SHA256())) + _private(key))
    return path


def signed_by_an_authority(path: Path, authority: Path) -> None:
    """The same, signed by a new authority, whose certificate is written, too."""
    key, their_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name, their_name = _name("server.test"), _name("authority.test")
    theirs = _builder(their_name, their_name, their_key).add_extension(_AUTHORITY, critical=True)
    authority.write_bytes(_pem(theirs.sign(their_key, hashes.SHA256())))
    built = _builder(name, their_name, key).add_extension(_ADDRESS, critical=False)
    path.write_bytes(_pem(built.sign(their_key, hashes.SHA256())) + _private(key))


_AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    today = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
