"""prompts/list and prompts/get."""

import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS, TextContent
from tests.mcp.conftest import Connect

from cove.mcp.prompts import MAX_ARGUMENT_CHARACTERS, prompts_for
from cove.mcp.toolsets import Toolset, tools_of

pytestmark = pytest.mark.anyio

ALL = ["quick_code_execution", "data_analysis", "create_python_sandbox", "create_node_sandbox"]


async def _text(client: Client, name: str, **arguments: str) -> str:
    prompt = await client.get_prompt(name, arguments)
    (message,) = prompt.messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    assert prompt.description
    return message.content.text


async def test_the_list_says_what_each_takes(connect: Connect) -> None:
    async with connect() as client:
        listed = (await client.list_prompts()).prompts
    assert [prompt.name for prompt in listed] == ALL
    assert all(prompt.title and prompt.description for prompt in listed)
    taken = {prompt.name: {one.name: one.required for one in prompt.arguments or ()} for prompt in listed}
    assert taken == {
        "quick_code_execution": {},
        "data_analysis": {"data": True, "question": False},
        "create_python_sandbox": {"sandbox_name": True, "namespace": True},
        "create_node_sandbox": {"sandbox_name": True, "namespace": True},
    }


@pytest.mark.parametrize("toolset", list(Toolset))
def test_a_prompt_is_offered_only_with_the_tools_that_it_speaks_of(toolset: Toolset) -> None:
    offered = tools_of(toolset)
    prompts = prompts_for(offered)
    assert all(tool in offered for prompt in prompts.values() for tool in prompt.needs)
    assert all(tool in prompt.text for prompt in prompts.values() for tool in prompt.needs)
    assert prompts, "every set of tools has a prompt"


async def test_the_quick_one_takes_nothing(connect: Connect) -> None:
    async with connect(toolset=Toolset.HOPX) as client:
        assert "execute_code_isolated" in await _text(client, "quick_code_execution")
        with pytest.raises(MCPError, match="no argument 'code'"):
            await client.get_prompt("quick_code_execution", {"code": "1"})


async def test_data_and_question_come_through_as_they_are(connect: Connect) -> None:
    async with connect() as client:
        text = await _text(client, "data_analysis", data="{data} {0} {question}\n1,2", question="Which {sum}?")
        assert "{data} {0} {question}\n1,2" in text
        assert "Which {sum}?" in text
        assert "Describe the data" in await _text(client, "data_analysis", data="x.csv")
        with pytest.raises(MCPError, match="data is missing") as refused:
            await client.get_prompt("data_analysis", {"question": "?"})
        assert refused.value.code == INVALID_PARAMS
        with pytest.raises(MCPError, match="data has 100001 characters"):
            await client.get_prompt("data_analysis", {"data": "x" * (MAX_ARGUMENT_CHARACTERS + 1)})


@pytest.mark.parametrize(("image", "run"), [("python", "python"), ("node", "javascript")])
async def test_the_two_for_named_sandboxes(connect: Connect, image: str, run: str) -> None:
    async with connect() as client:
        text = await _text(client, f"create_{image}_sandbox", sandbox_name="mine", namespace="team")
        without = await _text(client, f"create_{image}_sandbox")
    for part in ("sandbox_start", "`mine`", "`team`", f'"microsandbox/{image}"', "512", '"cpus": 1', "/workspace", run):
        assert part in text
    assert f"`{image}-sandbox`" in without
    assert "`default`" in without


async def test_an_unknown_prompt_is_refused_with_the_list(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(MCPError, match="quick_code_execution") as refused:
            await client.get_prompt("nope")
    assert refused.value.code == INVALID_PARAMS
