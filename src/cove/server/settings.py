"""Every setting of the server, read once at start from arguments and `COVE_...` variables."""

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cove.core.microsandbox_tokens import MIN_SECRET_CHARACTERS
from cove.core.retention import DEFAULT_AUDIT_DAYS
from cove.core.webhook_targets import AllowList
from cove.models.directories import default_data_dir as default_data_dir
from cove.models.host_names import nameserver_place
from cove.models.isolation import Isolation
from cove.models.limits import MAX_CPU_SHARE, MAX_NETWORK_MBPS, MUST_HOLD, NORMAL_CPU_SHARE, Limits
from cove.models.network import NetworkPreset, Rule
from cove.models.previews import PreviewAccess
from cove.models.quotas import Quota
from cove.models.sandboxes import MAX_TIMEOUT_SECONDS

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HOST = re.compile(r"[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\]")
_MAX_DOMAIN = 253 - len("65535-") - 18 - len(".")
"""RFC 1035 §2.3.4, with the label of a port of a sandbox before it."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REQUESTS_PER_MINUTE = 6000
_CREATES_PER_MINUTE = 1200
_NOTHING_HERE = frozenset({Isolation.FAKE})


class Settings(BaseSettings):
    """The settings. Each is also read from the variable `COVE_` + its name in upper case.

    Attributes:
        host, port: where the server listens.
        data_dir: store, keys, templates and the state of sandboxes.
        database_url: an SQLAlchemy URL; None means an SQLite file in `data_dir`.
        isolation: `auto` takes the strongest driver whose boot probe succeeds; requests may not ask for a weaker one
            than is named here.
        user: whom a server that root starts becomes; None means the account `cove`, or an id of Cove's own.
        dev: no API key is needed; only on a loopback address.
        public_url: how clients reach this server, if not by `http://HOST:PORT`.
        domain: each sandbox's ports get host names below it, `{port}-{id}.DOMAIN`; they must resolve to this server.
        tls_cert, tls_key: PEM files; with them the port speaks TLS besides plain HTTP. SIGHUP reads them again.
        allowed_hosts: names by which clients may address this server, besides those that follow from the other
            settings.
        preview_access: who may reach programs in sandboxes that do not say so themselves: everybody who knows the
            sandbox's id (`public`), or who has a link or the sandbox's token (`token`).
        allowed_origins: web pages that may call the API from a browser (scheme://host:port).
        pool_size: warm sandboxes kept for each of `pool_templates`.
        default_timeout_seconds: for creates that name none; 0 means never.
        max_sandboxes: of everybody together.
        namespace_max_sandboxes, namespace_max_total_vcpu, namespace_max_total_memory_mb, namespace_max_total_disk_mb:
            of each namespace, unless `cove namespaces limits` says otherwise for one; None means no limit.
        request_rate, create_rate: how many requests to the control plane, and how many creates, an API key may send in
            a minute; 0 means any number, None the default: 6000 and 1200, and any number on a loopback address.
        vcpu, memory_mb, disk_mb, pids, open_files: what a sandbox gets if nothing is asked for; `max_...` is the most
            that may be.
        max_inodes, max_cpu_share: the most that may be asked for; None is no maximum.
        max_execution_seconds, max_output_bytes: in force for every execution, and nothing above can be asked for; None
            leaves it to the agent.
        max_network_mbps: what any sandbox may send, and what it may get, in million bits a second; None is no maximum.
        allow_unenforced: names of limits without which sandboxes are started all the same where the host cannot enforce
            them; with `dev`, all.
        create_timeout_seconds: a start that takes longer counts as failed.
        reconcile_seconds: between two comparisons of the store with the host.
        max_body_bytes: of a request to the control plane.
        oauth_issuer: an authorization server whose access tokens `/mcp` takes beside API keys; its exact issuer
            identifier (RFC 8414).
        oauth_audience: what their `aud` must name; None means the public URL of `/mcp`.
        oauth_namespace_claim: names the namespace of their holder, who has one of their own without it.
        mcp_toolset: tools that `/mcp` shows to clients that do not choose (`?toolset=`).
        webhook_allow: hosts and networks that webhooks may go to although they are not public.
        network: what sandboxes may reach whose create and template say nothing of it: `none` or a preset.
        max_network: egress rules that cover all that any sandbox may be allowed; empty: no maximum.
        package_registries: rules that the preset `package-registries` stands for; empty: where pip downloads from.
        allow_internal: egress rules for what sandboxes may reach although its addresses are not public.
        nameservers: that are asked for sandboxes, as `192.0.2.1` or `192.0.2.1:5353`; empty: this machine's.
        webhook_give_up_seconds: from the end of a program; its webhook is not tried again after that.
        allowed_volumes: directories of this machine whose content may be copied into sandboxes by whoever has a key.
        microsandbox_server_key: signs keys that a microsandbox server gave out; they are honoured.
        audit_days: how long entries of the audit log are kept.
        audit_log: a file that each entry is also appended to, as a line of JSON; `-` is standard output.
        egress_log: a file to which everything is noted that sandboxes do on the network, as lines of JSON.
        egress_trust: a file of certificates (PEM) of authorities, beside this machine's, that vouch for the servers to
            which secrets of sandboxes go.
        log_format: `auto` is for people on a terminal or with `dev`, and JSON otherwise.
        log_level: the least important messages that are written.
    """

    model_config = SettingsConfigDict(env_prefix="COVE_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=5555, ge=0, le=65535)
    data_dir: Path = Field(default_factory=default_data_dir)
    database_url: str | None = None
    isolation: Isolation | Literal["auto"] = "auto"
    user: str | None = None
    dev: bool = False
    public_url: str | None = None
    domain: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    preview_access: PreviewAccess = PreviewAccess.PUBLIC
    allowed_origins: tuple[str, ...] = ()
    pool_size: int = Field(default=4, ge=0, le=1000)
    pool_templates: tuple[str, ...] = ("code-interpreter",)
    default_timeout_seconds: int = Field(default=3600, ge=0, le=MAX_TIMEOUT_SECONDS)
    max_sandboxes: int = Field(default=1000, ge=1, le=100_000)
    namespace_max_sandboxes: int | None = Field(default=None, ge=0, le=100_000)
    namespace_max_total_vcpu: int | None = Field(default=None, ge=0, le=2**31)
    namespace_max_total_memory_mb: int | None = Field(default=None, ge=0, le=2**40)
    namespace_max_total_disk_mb: int | None = Field(default=None, ge=0, le=2**40)
    request_rate: int | None = Field(default=None, ge=0, le=10_000_000)
    create_rate: int | None = Field(default=None, ge=0, le=10_000_000)
    vcpu: int = Field(default=Limits().vcpu, ge=1, le=256)
    memory_mb: int = Field(default=Limits().memory_mb, ge=64, le=1024 * 1024)
    disk_mb: int = Field(default=Limits().disk_mb, ge=64, le=1024 * 1024)
    pids: int = Field(default=Limits().pids, ge=16, le=65536)
    open_files: int = Field(default=Limits().open_files, ge=64, le=1048576)
    max_vcpu: int = Field(default=16, ge=1, le=256)
    max_memory_mb: int = Field(default=16 * 1024, ge=64, le=1024 * 1024)
    max_disk_mb: int = Field(default=64 * 1024, ge=64, le=1024 * 1024)
    max_pids: int = Field(default=4096, ge=16, le=65536)
    max_open_files: int = Field(default=65536, ge=64, le=1048576)
    max_inodes: int | None = Field(default=None, ge=256, le=2**31)
    max_cpu_share: int = Field(default=NORMAL_CPU_SHARE, ge=1, le=MAX_CPU_SHARE)
    max_execution_seconds: int | None = Field(default=None, ge=1, le=MAX_TIMEOUT_SECONDS)
    max_output_bytes: int | None = Field(default=None, ge=1024, le=2**40)
    max_network_mbps: int | None = Field(default=None, ge=1, le=MAX_NETWORK_MBPS)
    allow_unenforced: Annotated[tuple[str, ...], NoDecode] = ()
    create_timeout_seconds: float = Field(default=60.0, gt=0, le=600, allow_inf_nan=False)
    reconcile_seconds: float = Field(default=3.0, gt=0, le=60, allow_inf_nan=False)
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    webhook_allow: tuple[str, ...] = ()
    network: NetworkPreset = NetworkPreset.NONE
    max_network: Annotated[tuple[Rule, ...], NoDecode] = ()
    package_registries: Annotated[tuple[Rule, ...], NoDecode] = ()
    allow_internal: Annotated[tuple[Rule, ...], NoDecode] = ()
    nameservers: Annotated[tuple[str, ...], NoDecode] = ()
    oauth_issuer: str | None = None
    oauth_audience: str | None = Field(default=None, min_length=1, max_length=2048)
    oauth_namespace_claim: str = Field(default="cove_namespace", min_length=1, max_length=200)
    mcp_toolset: Literal["core", "hopx", "microsandbox", "all"] = "all"
    webhook_give_up_seconds: float = Field(default=24 * 3600.0, gt=0, le=7 * 24 * 3600, allow_inf_nan=False)
    allowed_volumes: tuple[Path, ...] = ()
    microsandbox_server_key: SecretStr | None = Field(default=None, min_length=MIN_SECRET_CHARACTERS)
    audit_days: int = Field(default=DEFAULT_AUDIT_DAYS, ge=1, le=3650)
    audit_log: str | None = Field(default=None, min_length=1, max_length=4096)
    egress_log: str | None = Field(default=None, min_length=1, max_length=4096)
    egress_trust: str | None = Field(default=None, min_length=1, max_length=4096)
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("public_url is an address like https://sandboxes.example.com, with scheme and host")
        return url.rstrip("/")

    @field_validator("domain")
    @classmethod
    def _host_names_fit_below(cls, domain: str | None) -> str | None:
        if domain is None:
            return None
        domain = domain.lower().removesuffix(".")
        if not _DOMAIN.fullmatch(domain) or len(domain) > _MAX_DOMAIN or domain.rpartition(".")[2].isdecimal():
            raise ValueError("domain is a name like sandboxes.example.com, without scheme, port or *")
        return domain

    @field_validator("oauth_issuer")
    @classmethod
    def _secure_web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        secure = parts.scheme == "https" or (parts.scheme == "http" and loopback)
        if not secure or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("oauth_issuer is an address like https://login.example.com, without query and fragment")
        return url

    @field_validator("audit_log")
    @classmethod
    def _file_or_standard_output(cls, path: str | None) -> str | None:
        if path is not None and path != "-" and not Path(path).is_absolute():
            raise ValueError("audit_log is an absolute path, or - for standard output")
        return path

    @field_validator("egress_log", "egress_trust")
    @classmethod
    def _file(cls, path: str | None, asked: ValidationInfo) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError(f"{asked.field_name} is an absolute path")
        return path

    @field_validator("nameservers")
    @classmethod
    def _addresses(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            try:
                nameserver_place(entry)
            except ValueError:
                raise ValueError(
                    f"nameservers are addresses like 192.0.2.1 or 192.0.2.1:5353, and {entry[:80]!r} is not"
                ) from None
        return entries

    @field_validator("max_network")
    @classmethod
    def _no_presets(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            if rule in frozenset(NetworkPreset):
                raise ValueError(f"max_network are rules like *.example.com:443, and {rule!r} is a preset")
        return rules

    @field_validator("webhook_allow")
    @classmethod
    def _hosts_and_networks(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.of(entries)
        return entries

    @field_validator("allowed_hosts")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.lower().removesuffix(".") for name in names)
        for name in names:
            if not _HOST.fullmatch(name):
                raise ValueError(f"allowed_hosts are names or addresses without scheme and port, and {name!r} is not")
        return names

    @field_validator("allowed_volumes")
    @classmethod
    def _whole_paths(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in paths:
            if not path.is_absolute() or ".." in path.parts:
                raise ValueError(f"allowed_volumes are absolute paths of directories, and {str(path)!r} is not")
        return paths

    @field_validator(
        "allow_unenforced", "package_registries", "allow_internal", "max_network", "nameservers", mode="before"
    )
    @classmethod
    def _listed(cls, names: object) -> object:
        if not isinstance(names, str):
            return names
        if names.lstrip().startswith("["):
            return json.loads(names)
        return tuple(name.strip() for name in names.split(",") if name.strip())

    @field_validator("allow_unenforced")
    @classmethod
    def _names_of_limits(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = ", ".join(sorted(MUST_HOLD))
        for name in names:
            if name not in MUST_HOLD:
                raise ValueError(f"{name[:40]!r} is no limit that may be missing; there are {known}")
        return names

    @field_validator("isolation")
    @classmethod
    def _real(cls, isolation: Isolation | Literal["auto"]) -> Isolation | Literal["auto"]:
        if isolation in _NOTHING_HERE:
            raise ValueError("isolation 'fake' isolates nothing and is for unit tests only")
        if isolation is Isolation.MICROVM:
            raise ValueError("isolation 'microvm' has no driver in this version; there are auto, gvisor and namespace")
        return isolation

    @model_validator(mode="after")
    def _dev_stays_at_home(self) -> Self:
        if self.dev and not self.is_loopback:
            raise ValueError(
                f"--dev needs no key, so it only listens on a loopback address, and {self.host} is not one; "
                "leave --dev out and make a key with `cove keys create NAME`"
            )
        return self

    @model_validator(mode="after")
    def _tokens_need_keys(self) -> Self:
        if self.dev and self.oauth_issuer is not None:
            raise ValueError("--dev lets everybody in, so an oauth_issuer would change nothing: leave one of them out")
        return self

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: a certificate and its private key")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def base_url(self) -> str:
        """How clients reach this server; never ends with a slash."""
        if self.public_url is not None:
            return self.public_url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def mcp_url(self) -> str:
        """Of `/mcp`."""
        return f"{self.base_url}/mcp"

    @property
    def public_scheme(self) -> str:
        """What clients speak to this server, if nothing else is known of them."""
        if self.public_url is not None:
            return urlsplit(self.public_url).scheme
        return "https" if self.tls_cert is not None else "http"

    @property
    def port_origin(self) -> str | None:
        """URL of a sandbox's port, with `{port}` and `{id}` to be filled in; None without a domain.

        Scheme and port are those of `public_url`, where one is given: then something in front takes the connections.
        """
        if self.domain is None:
            return None
        scheme = self.public_scheme
        port = self.port if self.public_url is None else urlsplit(self.public_url).port
        shown = "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
        return f"{scheme}://{{port}}-{{id}}.{self.domain}{shown}"

    @property
    def served_hosts(self) -> frozenset[str] | None:
        """Names that the Host field may carry besides loopback names and those of sandboxes; None means any.

        On a loopback address an unknown name is a page that was made to resolve to this machine (DNS rebinding).
        """
        if not self.allowed_hosts and not (self.is_loopback and self.public_url is None):
            return None
        own = {self.host.lower(), *self.allowed_hosts}
        if self.domain is not None:
            own |= {self.domain, f"api.{self.domain}"}
        if self.public_url is not None:
            own.add((urlsplit(self.public_url).hostname or "").removesuffix("."))
        return frozenset(own)

    @property
    def limits(self) -> Limits:
        """What a sandbox gets if nothing is asked for."""
        return Limits(
            vcpu=self.vcpu,
            memory_mb=self.memory_mb,
            disk_mb=self.disk_mb,
            pids=self.pids,
            open_files=self.open_files,
            cpu_share=min(NORMAL_CPU_SHARE, self.max_cpu_share),
            max_execution_seconds=self.max_execution_seconds,
            max_output_bytes=self.max_output_bytes,
            network_mbps=self.max_network_mbps,
        )

    @property
    def max_limits(self) -> Limits:
        """The most that a create may ask for; None is no maximum."""
        return Limits(
            vcpu=self.max_vcpu,
            memory_mb=self.max_memory_mb,
            disk_mb=self.max_disk_mb,
            pids=self.max_pids,
            open_files=self.max_open_files,
            inodes=self.max_inodes,
            cpu_share=self.max_cpu_share,
            max_execution_seconds=self.max_execution_seconds,
            max_output_bytes=self.max_output_bytes,
            network_mbps=self.max_network_mbps,
        )

    @property
    def must_hold(self) -> frozenset[str]:
        """Names of the limits without which no sandbox is started."""
        return frozenset() if self.dev else MUST_HOLD - set(self.allow_unenforced)

    @property
    def host_ceilings(self) -> dict[str, int]:
        """What the host daemon holds the server itself to."""
        most, usual = self.max_limits, self.limits
        names = ("vcpu", "memory_mb", "disk_mb", "pids", "open_files")
        return {name: max(getattr(most, name), getattr(usual, name)) for name in names}

    @property
    def namespace_quota(self) -> Quota:
        """What each namespace may use, if nothing else is said about it."""
        return Quota(
            max_sandboxes=self.namespace_max_sandboxes,
            max_total_vcpu=self.namespace_max_total_vcpu,
            max_total_memory_mb=self.namespace_max_total_memory_mb,
            max_total_disk_mb=self.namespace_max_total_disk_mb,
        )

    @property
    def requests_per_minute(self) -> int:
        """What an API key may send to the control plane; 0 means any number."""
        return self._rate(self.request_rate, _REQUESTS_PER_MINUTE)

    @property
    def creates_per_minute(self) -> int:
        """How many of these may be creates."""
        return self._rate(self.create_rate, _CREATES_PER_MINUTE)

    def _rate(self, chosen: int | None, default: int) -> int:
        if chosen is not None:
            return chosen
        return 0 if self.is_loopback and self.public_url is None else default

    @property
    def driver(self) -> Isolation | None:
        """The isolation that is insisted on; None leaves the choice to the host."""
        return None if self.isolation == "auto" else self.isolation
