"""What went wrong in the database, said as a `CoveError`."""

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cove.models.errors import CoveError, error


def as_cove_error(failure: SQLAlchemyError) -> CoveError:
    """The typed error for a failure that no repository expected. Its text holds no statement and no value."""
    text = str(getattr(failure, "orig", None) or type(failure).__name__)
    if "disk is full" in text or "No space left" in text:
        return error("DISK_FULL", "The disk is full: the store could not be written.")
    if isinstance(failure, PoolTimeout) or "locked" in text:
        return error("STORE_UNAVAILABLE", "The store is busy: another process holds its lock.")
    return error("STORE_UNAVAILABLE", f"The store failed: {text[:300]}.")
