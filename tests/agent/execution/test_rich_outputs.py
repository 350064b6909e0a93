"""Displayed objects: the last of each kind, and all in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cove.agent.execution.frames import MAX_RICH_OUTPUTS

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


async def test_display_of_html(sandbox: Sandbox) -> None:
    answer = await sandbox.python("from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))")
    assert answer.html == "<b>x</b>"
    assert answer.stdout == ""
    assert [output.type for output in answer.rich_outputs] == ["text/html"]


async def test_objects_with_representations(sandbox: Sandbox) -> None:
    code = """
class Thing:
    def __repr__(self): return 'thing'
    def _repr_html_(self): return '<i>1</i>'
    def _repr_svg_(self): return '<svg/>'
    def _repr_markdown_(self): return '**m**'
    def _repr_json_(self): return {'a': float('nan'), 'b': [1]}
    def _repr_png_(self): return b'\\x89PNG'
Thing()
"""
    answer = await sandbox.python(code)
    assert answer.stdout == "thing\n"
    assert (answer.html, answer.svg, answer.markdown) == ("<i>1</i>", "<svg/>", "**m**")
    assert answer.json_output == {"a": None, "b": [1]}
    assert answer.png == "iVBORw=="
    assert answer.rich_outputs[0].type == "image/png"


async def test_last_of_each_kind_and_all_in_order(sandbox: Sandbox) -> None:
    code = "from IPython.display import HTML, Markdown, display\nfor i in '012': display(HTML(i), Markdown(i))"
    answer = await sandbox.python(code)
    assert (answer.html, answer.markdown) == ("2", "2")
    assert len(answer.rich_outputs) == 6


async def test_json_that_is_no_object(sandbox: Sandbox) -> None:
    answer = await sandbox.python("from IPython.display import JSON\nJSON([1, 2])")
    assert answer.json_output == {"data": [1, 2]}


async def test_number_of_outputs_is_bounded(sandbox: Sandbox) -> None:
    code = "from IPython.display import HTML, display\nfor i in range(100): display(HTML(str(i)))"
    answer = await sandbox.python(code)
    assert len(answer.rich_outputs) == MAX_RICH_OUTPUTS
    assert "36 rich outputs were left out" in answer.stderr


async def test_size_of_outputs_is_bounded(sandbox: Sandbox) -> None:
    code = "from IPython.display import HTML, display\nfor i in range(3): display(HTML('x' * (7 * 2**20)))"
    answer = await sandbox.python(code)
    assert len(answer.rich_outputs) == 2
    assert "1 rich outputs were left out" in answer.stderr


async def test_plain_answers_on_request(sandbox: Sandbox) -> None:
    answer = await sandbox.python("from IPython.display import HTML\nHTML('<b>x</b>')", capture_rich=False)
    assert answer.html is None
    assert answer.rich_outputs == ()
    assert answer.result is not None


async def test_program_that_writes_to_the_channel_itself(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import os\nos.write(3, b'\\xff' * 100)\nimport time\nwhile True: time.sleep(1)")
    assert answer.exit_code == 137
    assert answer.kernel_restarted
    assert (await sandbox.python("1 + 1")).result == "2"


async def test_figures(sandbox: Sandbox) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.plot([3, 4]);"
    answer = await sandbox.python(code)
    assert answer.stderr == ""
    assert [output.type for output in answer.rich_outputs] == ["image/png", "image/png"]
    assert (answer.png or "").startswith("iVBOR")
    assert (await sandbox.python("plt.get_fignums()")).result == "[]"


async def test_figure_that_is_shown_is_shown_once(sandbox: Sandbox) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
    code = "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nfig"
    answer = await sandbox.python("%matplotlib inline\n" + code)
    assert len(answer.rich_outputs) == 1


async def test_figure_that_cannot_be_drawn(sandbox: Sandbox) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed here")
    answer = await sandbox.python("import matplotlib.pyplot as plt\nplt.title(r'$\\frac{$');")
    assert answer.exit_code == 1
    assert "Error" in answer.stderr
    assert (await sandbox.python("plt.get_fignums()")).result == "[]"


async def test_tables(sandbox: Sandbox) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed here")
    code = "import pandas as pd\npd.DataFrame({'a': [1, None], 'b': ['x', 'y']}, index=['r', 's'])"
    answer = await sandbox.python(code)
    assert answer.html is not None
    assert "<table" in answer.html
    assert answer.dataframe is not None
    assert answer.dataframe["columns"] == ["a", "b"]
    assert answer.dataframe["data"] == [[1.0, "x"], [None, "y"]]
    assert answer.dataframe["index"] == ["r", "s"]
    assert answer.dataframe["shape"] == [2, 2]
    assert answer.dataframe["truncated"] is False
    assert answer.stdout.startswith("     a  b\n")


async def test_large_table_and_series(sandbox: Sandbox) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed here")
    answer = await sandbox.python("import pandas as pd\npd.DataFrame([range(200)] * 3000)")
    assert answer.dataframe is not None
    assert (len(answer.dataframe["data"]), len(answer.dataframe["columns"])) == (1000, 100)
    assert answer.dataframe["shape"] == [3000, 200]
    assert answer.dataframe["truncated"] is True
    series = await sandbox.python("pd.Series([1, 2], name='s')")
    assert series.dataframe is not None
    assert (series.dataframe["columns"], series.dataframe["shape"]) == (["s"], [2])
    assert series.html is not None
