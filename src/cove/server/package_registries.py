"""What the preset `package-registries` stands for, where the operator does not say."""

from urllib.parse import urlsplit


def registries_of(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The rules in force: those that the operator has chosen, or pip's own."""
    return chosen or _own_registries()


def _own_registries() -> tuple[str, ...]:
    """Rules for where pip downloads from by default; pip itself knows that best. Registries of other package managers
    are for the operator to name."""
    # Here, because only one preset needs it, and it takes 30 ms.
    from pip._internal.models.index import PyPI

    hosts = (urlsplit(PyPI.simple_url).hostname, PyPI.file_storage_domain)
    return tuple(dict.fromkeys(host for host in hosts if host))
