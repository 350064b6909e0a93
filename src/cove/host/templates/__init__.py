"""Templates: recipes, the layers that they are built of, and the store of built ones (`store.TemplateStore`)."""
