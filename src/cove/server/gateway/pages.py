"""The page that a visitor of a program sees when the program cannot be reached."""

import html
from typing import Final

PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.3rem }}
small {{ color: #767676 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181d; color: #ddd }} }}
</style>
<h1>{title}</h1>
<p>{message}</p>
<p>{remedy}</p>
<p><small>{note}</small></p>
</html>
"""


def error_page(title: str, message: str, remedy: str, note: str) -> bytes:
    """A page that needs nothing from anywhere. Every argument is text, and is shown as text."""
    texts = {"title": title, "message": message, "remedy": remedy, "note": note}
    return _PAGE.format_map({name: html.escape(text) for name, text in texts.items()}).encode()
