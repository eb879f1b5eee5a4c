"""Every setting: its name, its sources, how it is read, its default.

The name is the key in TOML; the flag is the same with dashes. The environment variable is Consul's where
Consul has one, else `SIDECAR_` and the name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.base.address import TcpAddress
from agent.config import parsers
from agent.config.flags import Flag
from agent.policy.narrowing import parse_setting
from upstreams.spec import TunnelMode, WanMode, parse_upstream_flag


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class ProxyProtocol(StrEnum):
    """Whether the app gets the caller's SPIFFE ID in a header before the first byte."""

    OFF = "off"
    V2 = "v2"


class LogFormat(StrEnum):
    """The form of a log line."""

    TEXT = "text"  # hclog's shape
    JSON = "json"  # hclog's keys
    JOURNALD = "journald"  # journald's own protocol, or text where it does not run


class LogClass(StrEnum):
    """What an event of the log is about; the part of its module after `sidecar.`."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    UPSTREAMS = "upstreams"
    CONSUL = "consul"
    TRUST = "trust"
    POLICY = "policy"
    LISTENERS = "listeners"
    WORKERS = "workers"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting. `read` parses its text; raises ValueError with the remedy."""

    name: str
    read: Callable[[str], object]
    says: str  # one line of help
    default: object = None
    environment: str = ""
    example: str = ""
    repeatable: bool = False
    flag_only: bool = False  # neither variable nor key
    secret: bool = False  # errors of `read` quote nothing of it

    @property
    def switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.read is parsers.parse_bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are to choose from; empty where there are no fixed ones."""
        return self.read.values if isinstance(self.read, parsers.OneOf) else ()

    @property
    def flag(self) -> Flag:
        """The setting as a flag of the command line."""
        return Flag(name=self.flag_name, switch=self.switch, repeatable=self.repeatable)

    @property
    def flag_name(self) -> str:
        """The name of the flag, without its dash."""
        return self.name.replace("_", "-")

    def texts(self, value: object) -> list[str] | None:
        """Return a TOML value as the texts that the flag would have; None if its type is wrong."""
        if self.repeatable and isinstance(value, list):
            return value if all(isinstance(item, str) for item in value) else None
        if isinstance(value, bool):
            return [str(value).lower()]
        return [str(value)] if isinstance(value, str | int | float) else None

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return self.environment or f"SIDECAR_{self.name.upper()}"

    def printed(self, value: object) -> str:
        """Return a value for a person to read; never a secret."""
        if self.secret:
            return "(set, not shown)"
        if isinstance(value, tuple):
            return ", ".join(map(str, value)) or "(none)"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return "never" if value == math.inf else f"{value:g}"
        return str(value)


ADMIN_ADDRESS = TcpAddress("127.0.0.1", 19000)  # where the admin endpoint is unless a setting says otherwise

WHO = (
    Option(name="sidecar_for", read=parsers.parse_id, environment="CONNECT_SIDECAR_FOR", example="ID",
           says="run beside the service with this id; registration, upstreams and binds come from Consul"),
    Option(name="proxy_id", read=parsers.parse_id, environment="CONNECT_PROXY_ID", example="ID",
           says="run as the proxy with this service id; everything else comes from its registration"),
    Option(name="service", read=parsers.parse_name, example="NAME",
           says="run for this service without a registration"),
    Option(name="listen", read=parsers.parse_listen, example="ADDR:PORT",
           says="the public listener; overrides the registration"),
    Option(name="service_addr", read=parsers.parse_dial, example="ADDR:PORT|unix:/path",
           says="the workload's own address; overrides the registration"),
    Option(name="upstream", read=parse_upstream_flag, example="SPEC", repeatable=True,
           says="[prepared_query:]NAME[@DC]:[ADDR:]PORT or …:unix:/path; overrides the registration"),
    Option(name="register", read=parsers.parse_bool, default=False,
           says="with -service: register with the Consul agent, and deregister at the end"),
    Option(name="register_id", read=parsers.parse_id, example="ID",
           says="with -register: the service id (default NAME-proxy)"),
)  # fmt: skip

CONSUL = (
    Option(name="http_addr", read=parsers.parse_http_addr, environment="CONSUL_HTTP_ADDR",
           example="ADDR:PORT", default=parsers.ConsulAddress(host="127.0.0.1", port=8500),
           says="the Consul agent: host:port, http://…, https://… or unix:///path"),
    Option(name="token", read=parsers.parse_token, environment="CONSUL_HTTP_TOKEN", example="SECRET",
           secret=True, says="the ACL token; -token-file is safer"),
    Option(name="token_file", read=parsers.parse_file, environment="CONSUL_HTTP_TOKEN_FILE", example="FILE",
           says="a file with the ACL token; wins over -token and is read again when it changes"),
    Option(name="http_auth", read=parsers.parse_text, environment="CONSUL_HTTP_AUTH", example="USER:PASSWORD",
           secret=True, says="basic authentication, for a proxy in front of Consul"),
    Option(name="http_ssl", read=parsers.parse_bool, environment="CONSUL_HTTP_SSL", default=False,
           says="use TLS to the Consul agent"),
    Option(name="http_ssl_verify", read=parsers.parse_bool, environment="CONSUL_HTTP_SSL_VERIFY",
           default=True, says="verify the Consul agent's certificate"),
    Option(name="ca_file", read=parsers.parse_file, environment="CONSUL_CACERT", example="FILE",
           says="the CA certificates that may sign the Consul agent's certificate"),
    Option(name="ca_path", read=parsers.parse_directory, environment="CONSUL_CAPATH", example="DIRECTORY",
           says="a directory of such CA certificates: .pem, .crt and .cer files, or names that are hashes"),
    Option(name="client_cert", read=parsers.parse_file, environment="CONSUL_CLIENT_CERT", example="FILE",
           says="our client certificate for the Consul agent"),
    Option(name="client_key", read=parsers.parse_file, environment="CONSUL_CLIENT_KEY", example="FILE",
           says="the private key of -client-cert"),
    Option(name="tls_server_name", read=parsers.parse_name, environment="CONSUL_TLS_SERVER_NAME",
           example="NAME", says="the name that the Consul agent's certificate must have"),
    Option(name="namespace", read=parsers.parse_name, environment="CONSUL_NAMESPACE", example="NAME",
           says="Consul Enterprise only"),
    Option(name="partition", read=parsers.parse_name, environment="CONSUL_PARTITION", example="NAME",
           says="Consul Enterprise only"),
    Option(name="consul_connections", read=parsers.parse_connections, default=3, example="N",
           says="connections to the Consul agent; watches beyond them ask in turn; 0: one for each watch"),
    Option(name="consul_connections_most", read=parsers.parse_count, default=16, example="N",
           says="how many of them while all processes of this host have few; at most 120 are taken so"),
    Option(name="state_max_age", read=parsers.parse_grace, default=86400.0, example="SECONDS|never",
           says="how old the state of the last run may be that is served from while Consul does not answer"),
    Option(name="state_dir", read=parsers.parse_path, example="DIRECTORY",
           says="where that state is kept over a reboot, encrypted; only with -state-key-file"),
    Option(name="state_key_file", read=parsers.parse_file, example="FILE",
           says="the secret that encrypts it: at least 32 bytes; an empty file is none"),
    Option(name="start_timeout", read=parsers.parse_seconds, default=60.0, example="SECONDS",
           says="exit 69 if files and Consul's answers are not enough to serve by then; 0 waits for ever"),
)  # fmt: skip

OURS = (
    Option(name="admin_bind", read=parsers.parse_admin, default=(ADMIN_ADDRESS,),
           repeatable=True, example="ADDR:PORT|unix:/path",
           says="the admin endpoint; requests that change the agent need a unix socket"),
    Option(name="admin_hosts", read=parsers.parse_text, repeatable=True, example="NAME",
           says="another name in Host that the admin endpoint answers to over TCP, beside its addresses"),
    Option(name="expose_from", read=parsers.parse_caller, default=("host",), repeatable=True,
           example="NETWORK",
           says="who may ask exposed paths: host (this machine), addresses, networks; an empty list: none"),
    Option(name="drain_seconds", read=parsers.parse_seconds, default=30.0, example="SECONDS",
           says="how long live connections may continue after SIGTERM"),
    Option(name="leave_seconds", read=parsers.parse_seconds, example="SECONDS",
           says="how long callers are still accepted after SIGTERM, once Consul sends no more (default 3)"),
    Option(name="expired_peer_grace", read=parsers.parse_grace, default=0.0, example="SECONDS|never",
           says="how long a connection may outlive its peer's certificate; never: until its root has gone"),
    Option(name="vanished_grace", read=parsers.parse_seconds, default=30.0, example="SECONDS",
           says="how long to use instances that vanished with their node, anew once they are back; 0: never"),
    Option(name="wan_addresses", read=parsers.OneOf(WanMode), default=WanMode.AUTO, example="MODE",
           says="when to dial WAN addresses: auto (endpoints of other datacenters), prefer, require, never"),
    Option(name="tunnel", read=parsers.OneOf(TunnelMode), default=TunnelMode.NEVER, example="MODE",
           says="whether connections travel as streams of one: auto (where the far side offers it), never"),
    Option(name="max_connections", read=parsers.parse_count, default=0, example="N",
           says="the most live connections of one listener; 0: only the limit of open files applies"),
    Option(name="max_handshakes", read=parsers.parse_count, default=512, example="N",
           says="the most connections of one listener in their handshake; 0: no limit"),
    Option(name="workers", read=parsers.parse_workers, default=1, example="N",
           says="processes that serve connections; 1: this one; more: that many besides, for more cores"),
    Option(name="landlock", read=parsers.parse_bool, default=False,
           says="have the kernel keep the process to the files that these settings need (Landlock)"),
    Option(name="log_level", read=parsers.OneOf(LogLevel), default=LogLevel.INFO, example="LEVEL",
           says="debug, info, warn or error"),
    Option(name="log_format", read=parsers.OneOf(LogFormat), default=LogFormat.TEXT, example="FORMAT",
           says="text, json or journald (its own protocol, with each field of an event)"),
    Option(name="log_silence", read=parsers.OneOf(LogClass), repeatable=True, example="CLASS",
           says="a class of events of which only errors are logged, such as inbound or consul"),
    Option(name="tracing_endpoint", read=parsers.parse_collector, example="URL",
           says="export spans to this collector by OTLP over HTTP; needs the extra `tracing`"),
    Option(name="tracing_sample", read=parsers.parse_ratio, default=1.0, example="RATIO",
           says="the share of the traces that begin here of which spans are exported"),
)  # fmt: skip

POLICY = (
    Option(name="narrow", read=parse_setting, repeatable=True, example="SOURCE@DC,DC",
           says="accept SOURCE (* is any) only from these datacenters, whatever the intentions allow"),
    Option(name="deny_file", read=parsers.parse_path, example="FILE",
           says="SPIFFE IDs and certificate serials to refuse always; read again when the file changes"),
    Option(name="intentions_max_age", read=parsers.parse_max_age, default=math.inf, example="SECONDS|never",
           says="refuse all callers once Consul has not confirmed the intentions for this long"),
    Option(name="primary_datacenter", read=parsers.parse_name, example="NAME",
           says="where intentions and roots come from; found out where the primary's root signs leaves"),
    Option(name="replica_warn", read=parsers.parse_grace, default=120.0, example="SECONDS|never",
           says="warn once the primary has not said for this long what our datacenter says"),
    Option(name="judge_outbound", read=parsers.parse_bool, default=False,
           says="enforce intentions on our own calls too; otherwise only the destination does"),
    Option(name="audit", read=parsers.parse_bool, default=False,
           says="allow what intentions deny, and log and count it"),
    Option(name="strict", read=parsers.parse_bool, default=False,
           says="refuse to start with -audit: a guard for production"),
    Option(name="connection_log", read=parsers.parse_bool, default=False,
           says="log every connection, also one that ends in order"),
    Option(name="proxy_protocol", read=parsers.OneOf(ProxyProtocol), default=ProxyProtocol.OFF,
           example="off|v2", says="send the app the caller's SPIFFE ID in a PROXY protocol header"),
)  # fmt: skip

OPTIONS = (*WHO, *CONSUL, *OURS, *POLICY)
CONFIG = Option(
    name="config", read=parsers.parse_text, example="FILE", says="read settings from this TOML file"
)
BY_NAME = {option.name: option for option in OPTIONS}
