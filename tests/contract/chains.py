"""Certificates as a verifier sees them: by cryptography's client verifier and by the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

Certificate = x509.Certificate


def certificates(pem: str) -> list[Certificate]:
    """Every certificate of a PEM text, in order."""
    return x509.load_pem_x509_certificates(pem.encode())


def roots_of(answer: Any) -> list[Certificate]:
    """The trust bundle in a roots answer."""
    return [certificate for root in answer["Roots"] for certificate in certificates(root["RootCert"])]


def active_root(answer: Any) -> Any:
    """The one root that is active."""
    (active,) = (root for root in answer["Roots"] if root["Active"])
    return active


def uris(certificate: Certificate) -> list[str]:
    """The URI SANs, which must be all there are."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert len(list(names)) == len(found)
    return found


def key_id(certificate: Certificate) -> str:
    """The subject key identifier, colon hex."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex(":")


def signer_id(certificate: Certificate) -> str:
    """The authority key identifier, colon hex."""
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.key_identifier
    return found.key_identifier.hex(":")


def signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the issuer's key made the signature; its name must be the issuer's in any case."""
    assert certificate.issuer == issuer.subject
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def trusted(leaf_pem: str, roots: Sequence[Certificate], directory: Path) -> bool:
    """Whether the leaf, with what travels with it, reaches these roots; the verifiers must agree.

    cryptography's is asked where every issuer has a name: without one it refuses what OpenSSL and Go take,
    and that is how a newer Consul makes the intermediate of a secondary.
    """
    verdicts = {
        "sslclient": openssl_trusts(leaf_pem, roots, "sslclient", directory),
        "sslserver": openssl_trusts(leaf_pem, roots, "sslserver", directory),
    }
    if all(list(certificate.issuer) for certificate in certificates(leaf_pem)):
        verdicts["cryptography"] = cryptography_trusts(leaf_pem, roots)
    assert len(set(verdicts.values())) == 1, verdicts
    return verdicts["sslclient"]


def cryptography_trusts(leaf_pem: str, roots: Sequence[Certificate]) -> bool:
    """cryptography's verifier; the client's one, for it asks for no host name."""
    leaf, *extra = certificates(leaf_pem)
    try:
        PolicyBuilder().store(Store(list(roots))).build_client_verifier().verify(leaf, extra)
    except VerificationError:
        return False
    return True


def openssl_trusts(leaf_pem: str, roots: Sequence[Certificate], purpose: str, directory: Path) -> bool:
    """`openssl verify`, with the extra certificates as an unordered pool of untrusted ones."""
    program = shutil.which("openssl")
    assert program, "the suite needs the openssl command"
    leaf, *extra = (item.public_bytes(Encoding.PEM) for item in certificates(leaf_pem))
    contents = {
        "leaf": leaf,
        "extra": b"".join(extra),
        "roots": b"".join(root.public_bytes(Encoding.PEM) for root in roots),
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    command = [program, "verify", "-purpose", purpose, "-CAfile", str(directory / "roots")]
    command += ["-no-CApath", "-no-CAstore"]
    command += ["-untrusted", str(directory / "extra")] if extra else []
    done = subprocess.run([*command, str(directory / "leaf")], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def new_key() -> str:
    """A fresh P-256 key as PEM, in the form that a CA configuration takes."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
