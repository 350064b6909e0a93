"""Plots as pictures and tables as data; nothing that a client cannot show."""

import base64
import json
from typing import Any

import pytest
from mcp_types import ImageContent
from tests.mcp.battery import answer_of
from tests.mcp.conftest import Connect

from cove.mcp.pictures import MAX_PICTURES
from cove.mcp.tools.hopx_rich import TABLE_TYPE, displayed
from cove.models.execution import ExecutionResult, RichOutput

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10" + b"\x00" * 20
WIDE = PNG[:16] + b"\x00\x00\xff\xff" + PNG[20:]


def shown(*outputs: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    rich = tuple(RichOutput(type=next(iter(output), "text/plain"), data=output) for output in outputs)
    rows, pictures = displayed(ExecutionResult(rich_outputs=rich))
    return rows, len(pictures)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_a_plot_is_a_picture_and_a_table_is_data(connect: Connect, sandbox_id: str) -> None:
    code = """
import pandas as pd
import matplotlib.pyplot as plt
plt.plot([1, 4, 9])
plt.show()
pd.DataFrame({'a': [1, 2], 'b': ['x', None]})
"""
    async with connect() as client:
        arguments = {"sandbox_id": sandbox_id, "code": code}
        result = await client.call_tool("execute_code_rich", arguments)
        same = await client.call_tool("execute_code", {**arguments, "mode": "rich"})
    for answer in (result, same):
        assert not answer.is_error
        (picture,) = [block for block in answer.content if isinstance(block, ImageContent)]
        assert picture.mime_type == "image/png"
        assert base64.b64decode(picture.data, validate=True).startswith(b"\x89PNG")
        assert answer.structured_content is not None
        plot, table = answer.structured_content["rich_outputs"]
        assert plot == {"type": "image/png", "format": "png", "image": 1}
        assert (table["type"], table["format"]) == (TABLE_TYPE, "dataframe")
        assert table["data"]["columns"] == ["a", "b"]
        assert table["data"]["data"] == [[1, "x"], [2, None]]
        assert "note" not in table
        assert answer.structured_content["exit_code"] == 0


async def test_a_long_table_says_how_much_of_it_is_shown(connect: Connect, sandbox_id: str) -> None:
    code = "import pandas as pd\npd.DataFrame({'n': range(5000), 'text': ['word ' * 5] * 5000})"
    async with connect() as client:
        ran = await answer_of(client, "execute_code_rich", sandbox_id=sandbox_id, code=code)
    (table,) = ran["rich_outputs"]
    rows = len(table["data"]["data"])
    assert 50 < rows < 1000
    assert len(table["data"]["index"]) == rows
    assert table["data"]["shape"] == [5000, 2]
    assert table["note"].startswith(f"the first {rows} of 5000 rows")
    assert len(json.dumps(table)) < 25_000


async def test_svg_html_markdown_and_json_are_text(connect: Connect, sandbox_id: str) -> None:
    code = """
from IPython.display import HTML, JSON, SVG, Markdown, display
display(HTML('<b>bold</b>'), Markdown('*x*'), JSON({'a': [1]}))
display(SVG('<svg xmlns="http://www.w3.org/2000/svg"/>'))
display(HTML('y' * 100000))
"""
    async with connect() as client:
        ran = await answer_of(client, "execute_code_rich", sandbox_id=sandbox_id, code=code)
    html, markdown, data, svg, long = ran["rich_outputs"]
    assert (html["type"], html["data"]) == ("text/html", "<b>bold</b>")
    assert (markdown["format"], markdown["data"]) == ("markdown", "*x*")
    assert data["data"] == {"a": [1]}
    assert svg["format"] == "svg"
    assert svg["data"].startswith("<svg")
    assert "left out" in long["data"]
    assert len(long["data"]) < 21_000


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("image/png", "not base64!", "not base64"),
        ("image/png", encoded(b"GIF89a"), "not image/png"),
        ("image/jpeg", encoded(PNG), "not image/jpeg"),
        ("image/png", encoded(WIDE), "pixels"),
        ("image/png", encoded(PNG[:12]), "pixels"),
        ("image/png", encoded(PNG + b"\0" * 6_000_000), "MB"),
        ("image/png", {"a": 1}, "MB"),
    ],
)
def test_what_is_no_picture_is_left_out_and_named(kind: str, data: object, why: str) -> None:
    rows, pictures = shown({kind: data})
    assert pictures == 0
    assert "left out" in rows[0]["note"]
    assert why in rows[0]["note"]


def test_pictures_are_bounded_in_number_and_size() -> None:
    many, taken = shown(*[{"image/png": encoded(PNG)}] * 12)
    assert taken == MAX_PICTURES
    assert [row["image"] for row in many[:MAX_PICTURES]] == list(range(1, MAX_PICTURES + 1))
    assert all("more than 10 pictures" in row["note"] for row in many[MAX_PICTURES:])
    big, taken = shown(*[{"image/png": encoded(PNG + b"\0" * 1_500_000)}] * 4)
    assert taken == 2
    assert "MB" in big[2]["note"]


def test_line_breaks_within_base64_are_taken_out() -> None:
    text = encoded(PNG)
    rows, taken = displayed(
        ExecutionResult(rich_outputs=(RichOutput(type="image/png", data={"image/png": f"{text[:20]}\n{text[20:]}\n"}),))
    )
    assert taken[0].data == text
    assert rows == [{"type": "image/png", "format": "png", "image": 1}]


def test_all_that_is_displayed_together_is_bounded() -> None:
    rows, _ = shown(*[{"text/html": "z" * 19_000}] * 60)
    assert len(json.dumps(rows)) < 100_000
    assert rows[0]["data"] == "z" * 19_000
    assert "left out" in rows[-1]["note"]


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"data": "x", "index": None, "columns": 5, "shape": ["a"]},
        {"data": [["y" * 50_000]], "index": [0], "columns": ["c"], "shape": [1, 1]},
        {"data": [[1]], "index": [0], "columns": ["c" * 50_000], "shape": [1, 1]},
    ],
)
def test_strange_tables_are_bounded_too(table: dict[str, Any]) -> None:
    rows, _ = shown({TABLE_TYPE: table})
    assert len(json.dumps(rows)) < 25_000
