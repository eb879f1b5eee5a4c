"""The endpoints of the certificate authority: roots, leaf, configuration, rotation.

See docs/consul-api.md#roots and #ca-configuration.

`PUT /v1/connect/ca/rotate` is our own: it makes a new root from a key made here, of the configured kind or of
the kind in the body (`{"PrivateKeyType": "rsa", "PrivateKeyBits": 2048}`). With Consul an operator must paste
a key.
"""

from __future__ import annotations

from functools import partial

from datacenter.ca.authority import CONFIG, ROOTS, CertificateAuthority
from datacenter.ca.config import ConfigRefused, handed_in
from datacenter.ca.keys import InvalidKey, KeyKind, generate_key_aside
from datacenter.ca.leaves import Leaves
from datacenter.ca.trust import timestamp
from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import ANYTHING, Fields, Mapped, decode_or_bad_request
from datacenter.state.acl import require
from datacenter.state.errors import UNANSWERED, ApiError, bad_request
from datacenter.state.store import Document

PEM_CHAIN = "application/pem-certificate-chain"

_CONFIGURATION = Fields(
    "CAConfiguration",
    {
        "Provider": str,
        "Config": Mapped(ANYTHING),
        "State": Mapped(str),
        "ForceWithoutCrossSigning": bool,
        "CreateIndex": int,
        "ModifyIndex": int,
    },
)
_ROTATION = Fields("Rotation", {"PrivateKeyType": str, "PrivateKeyBits": int})
_BOOLEANS = {"1": True, "t": True, "true": True, "": True, "0": False, "f": False, "false": False}


def routes(dc: Datacenter) -> list[Route]:
    """Return every endpoint of this module."""
    api = _AgentEndpoints(dc)
    return [
        Route("GET", "/v1/agent/connect/ca/roots", api.roots),
        Route("GET", "/v1/agent/connect/ca/leaf/{service:path}", api.leaf),
        Route("GET", "/v1/connect/ca/roots", partial(_server_roots, dc)),
        Route("GET", "/v1/connect/ca/configuration", partial(_read_configuration, dc)),
        Route("PUT", "/v1/connect/ca/configuration", partial(_write_configuration, dc), forwards=False),
        Route("PUT", "/v1/connect/ca/rotate", partial(_rotate, dc)),
    ]


class _AgentEndpoints:
    """The endpoints that an agent serves from its cache."""

    def __init__(self, dc: Datacenter) -> None:
        self._ca = CertificateAuthority(dc)
        self._leaves = Leaves(dc)
        self._asked_for_roots = False

    async def roots(self, request: Request) -> Reply:
        """Answer without a token, even with a default of deny."""
        answer = self._ca.answer()
        hit = self._asked_for_roots and request.index == 0
        self._asked_for_roots = True
        return Reply(value=answer, topics=(ROOTS,), meta=QueryMeta.PLAIN, headers=_cache_headers(hit, 0))

    async def leaf(self, request: Request) -> Reply:
        """Return a leaf; needs service:write. It blocks on an index of its own, so the frame does not block.

        `?reissue` is our own: it issues another leaf, whatever the age of the cached one.
        """
        service = request.params["service"]
        require(request.authorizer.service_write(service))
        fetched = await self._leaves.fetch(
            service,
            token=request.token,
            index=request.index,
            wait=request.wait,
            reissue=request.flag("reissue") and not request.index,
        )
        leaf = fetched.leaf
        value = {
            "SerialNumber": leaf.serial,
            "CertPEM": leaf.cert_pem,
            "PrivateKeyPEM": leaf.key_pem,
            "Service": service,
            "ServiceURI": str(leaf.identity),
            "ValidAfter": timestamp(leaf.certificate.not_valid_before_utc),
            "ValidBefore": timestamp(leaf.certificate.not_valid_after_utc),
            "CreateIndex": leaf.index,
            "ModifyIndex": leaf.index,
        }
        headers = _cache_headers(fetched.hit, fetched.age)
        return Reply(value=value, index=leaf.index, meta=QueryMeta.INDEX, headers=headers)


async def _server_roots(dc: Datacenter, request: Request) -> Reply:
    try:
        answer = CertificateAuthority(dc).answer()
    except ApiError as error:
        raise ApiError(error.status, error.text, UNANSWERED) from error
    if "pem" in request.query and _boolean(request.query["pem"]):
        pems = [
            pem for root in answer["Roots"] for pem in (root["RootCert"], *(root["IntermediateCerts"] or ()))
        ]
        # An external root may lack its last newline, which would join it to the next one.
        return Reply(value="".join(f"{pem.strip()}\n" for pem in pems), content_type=PEM_CHAIN)
    return Reply(value=answer, topics=(ROOTS,), meta=QueryMeta.PLAIN)


async def _read_configuration(dc: Datacenter, request: Request) -> Reply:
    require(request.authorizer.operator_read())
    row = dc.store.table(CONFIG).get("config")
    indexes = {
        "CreateIndex": row.create_index if row else 0,
        "ModifyIndex": row.modify_index if row else 0,
    }
    return Reply(value=CertificateAuthority(dc).config.document() | indexes)


async def _write_configuration(dc: Datacenter, request: Request) -> Reply:
    """Forward with `?dc=` as usual, except for a private key: none is sent between datacenters."""
    require(request.authorizer.operator_write())
    document = decode_or_bad_request(request.body, _CONFIGURATION)
    elsewhere = request.query.get("dc", "")
    if elsewhere not in {"", dc.settings.name}:
        if _has_a_private_key(document):
            raise bad_request(f"a private key is not sent to another datacenter; ask {elsewhere} itself")
        return await dc.forwarder.forward(request, elsewhere)
    CertificateAuthority(dc).configure(document)
    return Reply()


def _has_a_private_key(document: Document) -> bool:
    try:
        return bool(handed_in(document)[0])
    except ConfigRefused as error:
        raise ApiError(500, str(error)) from error


async def _rotate(dc: Datacenter, request: Request) -> Reply:
    if not dc.settings.is_primary:
        return await dc.forwarder.forward(request, dc.settings.primary_datacenter)
    require(request.authorizer.operator_write())
    ca = CertificateAuthority(dc)
    wanted = decode_or_bad_request(request.body or b"{}", _ROTATION)
    kind = ca.config.kind
    try:
        kind = KeyKind(wanted.get("PrivateKeyType", kind.type), wanted.get("PrivateKeyBits", kind.bits))
    except InvalidKey as error:
        raise ApiError(400, str(error)) from error
    ca.rotate(await generate_key_aside(kind))
    return Reply(value={"ActiveRootID": ca.require_trust().active.id})


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ApiError(400, 'The "pem" query parameter must be a boolean value') from None


def _cache_headers(hit: bool, age: int) -> dict[str, str]:
    return {"X-Cache": "HIT", "Age": str(age)} if hit else {"X-Cache": "MISS"}
