"""The gateway: the server's public port, between clients and the control plane, the agents or the programs inside."""

from cove.server.gateway.certificate import ServerCertificate
from cove.server.gateway.counters import GatewayCounters
from cove.server.gateway.gateway import Gateway
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.visitors import TokenVerifier

__all__ = ["Gateway", "GatewayCounters", "GatewaySettings", "ServerCertificate", "TokenVerifier"]
