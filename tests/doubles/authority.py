"""An authority of one's own, as in a company's network, and a certificate of loopback that it vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NOW = datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Trust:
    """PEM files."""

    ca: Path
    """What a client has to trust."""
    certificate: Path
    key: Path


class Authority:
    """Signs certificates, and writes them and their keys into a folder."""

    def __init__(self, folder: Path, name: str = "An authority of a test") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        root = _certificate(self._name, self._name, self._key.public_key(), _NOW + timedelta(days=2))
        root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(_pem(root.sign(self._key, hashes.SHA256())))

    def issue(
        self,
        stem: str,
        common: str = "",
        *,
        names: Sequence[str] = (),
        uris: Sequence[str] = (),
        addresses: Sequence[str] = (),
        ends: timedelta = timedelta(days=2),
    ) -> Trust:
        """A certificate in STEM.pem and its key in STEM-key.pem; what is there is replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate(_name(common or stem), self._name, key.public_key(), _NOW + ends)
        others: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
        others += [x509.UniformResourceIdentifier(each) for each in uris]
        others += [x509.IPAddress(ip_address(each)) for each in addresses]
        if others:
            leaf = leaf.add_extension(x509.SubjectAlternativeName(others), critical=False)
        made = Trust(self.ca, self._folder / f"{stem}.pem", self._folder / f"{stem}-key.pem")
        made.certificate.write_bytes(_pem(leaf.sign(self._key, hashes.SHA256())))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return made


def make(folder: Path) -> Trust:
    """Make an authority and have it sign for 127.0.0.1."""
    return Authority(folder).issue("certificate", "127.0.0.1", addresses=["127.0.0.1"])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
    return made.not_valid_before(_NOW - timedelta(days=3)).not_valid_after(until)
