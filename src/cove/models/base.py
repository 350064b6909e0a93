"""The base of all contract models: frozen, and strict about numbers that JSON cannot carry."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """A frozen value that crosses a process boundary.

    Unknown fields are ignored, because older and newer clients send more than one version knows.
    NaN and infinity are refused: JSON has neither, and a limit of NaN limits nothing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)
