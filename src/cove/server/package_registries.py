"""What the preset `package-registries` stands for, where the operator does not say."""

from urllib.parse import urlsplit


def own_registries() -> tuple[str, ...]:
    """Rules for where pip downloads from by default; pip itself knows that best. Registries of other package managers
    are for the operator to name."""
    # Here, because only one setting's default needs it.
    from pip._internal.models.index import PyPI

    hosts = (urlsplit(PyPI.simple_url).hostname, PyPI.file_storage_domain)
    return tuple(dict.fromkeys(host for host in hosts if host))
