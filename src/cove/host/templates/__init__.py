"""Templates: recipes, the layers that they are built of, and the store of built ones."""

from cove.host.templates.recipes import Recipe
from cove.host.templates.store import TemplateStore

__all__ = ["Recipe", "TemplateStore"]
