"""Entry point of the `cove` program. Assistants start `cove mcp` with every chat: that way imports little."""

import sys


def main() -> None:
    """Run the command that the arguments name."""
    from cove.cli.mcp_stdio import plain_options, run

    if sys.argv[1:2] == ["mcp"] and (options := plain_options(sys.argv[2:])) is not None:
        try:
            sys.exit(run(options))
        except KeyboardInterrupt:
            sys.exit(130)
    from cove.cli.app import run_command

    run_command()


if __name__ == "__main__":
    main()
