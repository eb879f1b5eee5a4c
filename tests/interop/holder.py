"""What a foreign peer needs to be in the mesh: a leaf with its chain and key, the roots, and its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.contract.client import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One identity as PEM, as a datacenter handed it out. `cert_pem` is the leaf and what follows it."""

    uri: str
    cert_pem: str
    key_pem: str = field(repr=False)
    roots_pem: str

    def files(self, directory: Path) -> Files:
        """Write it for programs that cannot be handed text; the directory is the test's own."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        leaf, rest = split_leaf(self.cert_pem)
        texts = {
            "leaf": leaf,
            "chain": rest,
            "full": self.cert_pem,
            "key": self.key_pem,
            "roots": self.roots_pem,
        }
        paths = {name: directory / f"{name}.pem" for name in texts}
        for name, path in paths.items():
            path.touch(mode=0o600)
            path.write_text(texts[name])
        return Files(**paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A holder on disk. `full` is leaf and chain in one."""

    leaf: Path
    chain: Path
    full: Path
    key: Path
    roots: Path


def holder(api: Api, service: str) -> Holder:
    """The identity a datacenter gives to a service."""
    leaf = api.get(f"/v1/agent/connect/ca/leaf/{service}").json
    roots = api.get("/v1/agent/connect/ca/roots").json["Roots"]
    return Holder(
        uri=leaf["ServiceURI"],
        cert_pem=leaf["CertPEM"],
        key_pem=leaf["PrivateKeyPEM"],
        roots_pem="".join(root["RootCert"] for root in roots),
    )


def split_leaf(pem: str) -> tuple[str, str]:
    """The first certificate, and the rest."""
    end = "-----END CERTIFICATE-----\n"
    first, _, rest = pem.partition(end)
    return first + end, rest.lstrip("\n")
