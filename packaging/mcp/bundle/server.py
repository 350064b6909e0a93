"""What the host of the bundle starts: `cove mcp` with the settings that its user has made."""

import os
import sys

SETTINGS = ("COVE_BASE_URL", "COVE_API_KEY", "COVE_TOOLSET")


def main() -> None:
    """Serve over stdin and stdout."""
    settings = {name: os.environ.pop(name, "").strip() for name in SETTINGS}
    # Hosts pass on the placeholder of a setting that has no value.
    given = {name: value for name, value in settings.items() if value and not value.startswith("${")}
    toolset = given.pop("COVE_TOOLSET", "all")
    if "COVE_BASE_URL" not in given and sys.platform != "linux":
        sys.exit("Give the address of a Cove server in the settings of this extension: sandboxes run on Linux only.")
    os.environ.update(given)
    sys.argv = ["cove", "mcp", "--toolset", toolset]
    from cove.cli.main import main as cove

    cove()


if __name__ == "__main__":
    main()
