"""The running agent's answer to `sidecar explain`, from the policy that it enforces at this moment."""

from __future__ import annotations

import msgspec

from agent.base.undecodable import UNDECODABLE
from agent.inbound.verdict import InboundReason
from agent.observe.agent import Agent
from agent.observe.server import JSON, Reply, text_reply
from agent.policy.authorize import Policy
from agent.policy.explain import Evidence, Inquiry, InvalidInquiry, explain, question_of
from upstreams.spec import TunnelMode


def answer_inquiry(agent: Agent, body: bytes) -> Reply:
    """Return `{"allowed": bool, "text": …}`; 400 for a malformed question, 503 until intentions are known."""
    policy, registration = (
        agent.control.snapshot.policy.value,
        agent.control.snapshot.registration.value,
    )
    try:
        inquiry = msgspec.json.decode(body, type=Inquiry)
    except UNDECODABLE as error:
        return text_reply(400, f"not a question: {error}")
    if policy is None or registration is None:
        return text_reply(503, "intentions are not known yet")
    destination, _, datacenter = inquiry.destination.partition("@")
    ours = f"{registration.service}@{policy.datacenter}"
    asked = f"{destination or registration.service}@{datacenter or policy.datacenter}"
    if asked.lower() != ours.lower():
        return text_reply(400, f"this is the sidecar of {ours}")
    current = agent.control.snapshot.credentials.value
    trust_domain = "" if current is None else str(current.credentials.bundle.trust_domain)
    try:
        question = question_of(inquiry, trust_domain, policy.datacenter)
    except InvalidInquiry as error:
        return text_reply(400, str(error))
    evidence = Evidence(
        policy=policy,
        default_origin=f"the last answer of {agent.control.settings.http_addr}",
        replica=_replica(agent, policy),
        deny_list=agent.control.deny_file.list,
        deny_origin=str(agent.control.settings.deny_file or ""),
        http=registration.http,
        too_old_since=agent.control.intentions.freshness.too_old_since(),
        travel=_travel(agent.control.settings.tunnel),
    )
    explanation = explain(question, evidence)
    answer = {"allowed": explanation.allowed, "reason": explanation.reason, "text": explanation.text}
    return Reply(content_type=JSON, body=msgspec.json.encode(answer))


def _travel(mode: TunnelMode) -> str:
    """Return whether callers may come in tunnels; whether one does is its own setting too."""
    if mode is TunnelMode.AUTO:
        return "in a tunnel, if the caller's sidecar takes our offer; else a connection each"
    return f"a connection each: our setting `tunnel` is never ({InboundReason.NO_TUNNELS.value})"


def _replica(agent: Agent, policy: Policy) -> str:
    status = agent.control.status_of("intentions")
    said = f"{len(policy.intentions.rules)} rules as this agent has them"
    if status is None or status.age is None:
        return said
    failing = f", failing since: {status.failing}" if status.failing is not None else ""
    replica = agent.control.replica
    primary = "" if replica is None else replica.describe("intentions")
    return "; ".join(filter(None, (f"{said}, confirmed {status.age:.1f} s ago{failing}", primary)))
