"""On whose behalf something happens."""

from dataclasses import dataclass

from cove.models.stored import DEFAULT_NAMESPACE

SYSTEM_ACTOR = "system"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever sent a request, once the request is authenticated.

    Attributes:
        namespace: the tenant whose things it sees; others do not exist for it.
        actor: for the record of events: the id of an API key.
    """

    namespace: str
    actor: str

    @property
    def is_operator(self) -> bool:
        """Whether it may see figures about the whole server: keys of the first namespace belong to who runs it."""
        return self.namespace == DEFAULT_NAMESPACE


DEVELOPER = Principal(DEFAULT_NAMESPACE, "dev")
"""Everyone, on a server that was started with `--dev`."""
