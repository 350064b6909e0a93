"""Where sandboxes find the authorities that they trust for servers, and how their programs are told."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
"""Inside: all authorities, that of the egress program among them."""
AUTHORITY: Final = "/usr/local/share/ca-certificates/cove-egress-authority.crt"
"""Inside: that of the egress program alone, where update-ca-certificates(8) finds it when it writes the bundle anew."""

TRUST_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "SSL_CERT_FILE",  # OpenSSL and what goes by it: Python, Ruby, httpx, uv, rustls
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
                "PIP_CERT",
                "GIT_SSL_CAINFO",
                "AWS_CA_BUNDLE",
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
                "CARGO_HTTP_CAINFO",
                "DENO_CERT",
            ),
            BUNDLE,
        ),
        "NODE_EXTRA_CA_CERTS": AUTHORITY,
    }
)
"""For programs that bring authorities of their own and would not look at the bundle: of sandboxes with secrets."""
