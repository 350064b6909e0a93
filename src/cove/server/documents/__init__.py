"""The OpenAPI documents of both planes: what is answered where, with examples and errors."""
