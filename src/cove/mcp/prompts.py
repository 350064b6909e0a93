"""Prompts: requests that a person picks in a client, put into words that make a model use the tools well."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptResult, PromptArgument, PromptMessage, TextContent
from mcp_types import Prompt as ListedPrompt

MAX_ARGUMENT_CHARACTERS: Final = 100_000
_QUICK = """\
Run the program that my next message asks for, in a sandbox, instead of guessing what it would print.

1. Write the whole program: nothing from an earlier run is there. Print every result that matters.
2. Call execute_code_isolated with `code` and `language` (python, javascript, bash or go). The sandbox exists for this \
one call.
3. Read exit_code first. If it is not 0, read stderr, correct the program and call again.
4. Tell me the result and, in a sentence, how it was computed. Say so if it could not be run."""
_ANALYSIS = """\
Analyse data by computing, not by reading it with the eye.

The data, a path, or how to get it:
{data}

What I want to know:
{question}

1. Call create_sandbox once and keep its id; variables and files stay there between calls.
2. If the data is pasted above, store it below /workspace with file_write. Never type numbers over from memory.
3. Work in small steps with execute_code_persistent: load it with pandas, look at shape, column types and missing \
values, then compute.
4. If there is a tool execute_code_rich, use it for plots and tables: it returns pictures and data.
5. Answer the question first, with the figures; then name assumptions, rows that were left out, and doubts. \
Every figure must come from a call.
6. Call delete_sandbox when you are done."""
_LANGUAGE = """\
Set up a {language} sandbox that I can go on working in.

1. Call sandbox_start with sandbox `{sandbox_name}`, namespace `{namespace}`, and this config: \
{{"image": "microsandbox/{image}", "memory": 512, "cpus": 1, "workdir": "/workspace"}}.
2. Call sandbox_run_code there with language `{run}` and a program that prints the version of {language}, to show that \
it works.
3. Tell me its name and namespace, and that sandbox_run_code and sandbox_run_command are used with both. Leave it \
running: sandbox_stop ends it."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a prompt. `default` stands in where a client sends none, also where it is `required`."""

    name: str
    description: str
    required: bool
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        text: with the arguments in braces.
        needs: tools that the text speaks of; where one of them is not offered, the prompt is not either.
    """

    name: str
    title: str
    description: str
    text: str
    needs: tuple[str, ...]
    arguments: tuple[Argument, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict[str, str])

    def listed(self) -> ListedPrompt:
        """As `prompts/list` shows it."""
        arguments = [
            PromptArgument(name=one.name, description=one.description, required=one.required) for one in self.arguments
        ]
        return ListedPrompt(name=self.name, title=self.title, description=self.description, arguments=arguments or None)

    def filled(self, given: Mapping[str, str]) -> GetPromptResult:
        """The message for the model.

        Raises:
            MCPError: INVALID_PARAMS; an argument is missing, unknown or too long.
        """
        values = {one.name: _value(one, given) for one in self.arguments}
        unknown = sorted(given.keys() - values.keys())
        if unknown:
            known = ", ".join(values) or "none"
            raise _refused(f"{self.name} has no argument {unknown[0][:100]!r}; there are: {known}.")
        text = self.text.format_map({**values, **self.fixed})
        message = PromptMessage(role="user", content=TextContent(text=text))
        return GetPromptResult(description=self.description, messages=[message])


def prompts_for(offered: Container[str]) -> dict[str, Prompt]:
    """The prompts by name whose tools are `offered`, in the order in which they are listed, which never changes."""
    return {prompt.name: prompt for prompt in _PROMPTS if all(tool in offered for tool in prompt.needs)}


def find_prompt(prompts: Mapping[str, Prompt], name: str) -> Prompt:
    """The prompt of this name.

    Raises:
        MCPError: INVALID_PARAMS; there is none.
    """
    prompt = prompts.get(name)
    if prompt is None:
        raise _refused(f"Unknown prompt: {name[:100]!r}. There are: {', '.join(prompts) or 'none'}.")
    return prompt


def _value(argument: Argument, given: Mapping[str, str]) -> str:
    value = given.get(argument.name, "")
    if len(value) > MAX_ARGUMENT_CHARACTERS:
        raise _refused(
            f"{argument.name} has {len(value)} characters; at most {MAX_ARGUMENT_CHARACTERS} are taken. "
            "Put the text into a file and give its path."
        )
    if value.strip():
        return value
    if argument.default is None:
        raise _refused(f"The argument {argument.name} is missing: {argument.description}")
    return argument.default


def _refused(text: str) -> MCPError:
    return MCPError(INVALID_PARAMS, text)


def _sandbox_of(language: str, *, image: str, run: str) -> Prompt:
    return Prompt(
        name=f"create_{image}_sandbox",
        title=f"Create a {language} sandbox",
        description=f"Start a sandbox for {language} under a name of your own, and check that it works.",
        text=_LANGUAGE,
        needs=("sandbox_start", "sandbox_run_code", "sandbox_run_command", "sandbox_stop"),
        arguments=(
            Argument(
                "sandbox_name", "Name of the sandbox, to find it again.", required=True, default=f"{image}-sandbox"
            ),
            Argument("namespace", "Where the name is looked up.", required=True, default="default"),
        ),
        fixed={"language": language, "image": image, "run": run},
    )


_PROMPTS: Final = (
    Prompt(
        name="quick_code_execution",
        title="Run a program once",
        description="Run one program in a sandbox of its own and report what it printed.",
        text=_QUICK,
        needs=("execute_code_isolated",),
    ),
    Prompt(
        name="data_analysis",
        title="Analyse data",
        description="Answer a question about data by computing in a sandbox, step by step.",
        text=_ANALYSIS,
        needs=("create_sandbox", "execute_code_persistent", "file_write", "delete_sandbox"),
        arguments=(
            Argument("data", "The data itself, a path in a sandbox, or how to get it.", required=True),
            Argument(
                "question",
                "What to find out.",
                required=False,
                default="Describe the data: what it holds, how good it is, and what stands out.",
            ),
        ),
    ),
    _sandbox_of("Python", image="python", run="python"),
    _sandbox_of("Node.js", image="node", run="javascript"),
)
