"""A sandbox that may reach one host and nothing else, and what it tried.

cove serve --dev        # in another terminal
python examples/network.py [HOST]
"""

import sys

from cove import Sandbox

CURIOUS = """
import sys, urllib.request
for url in sys.argv[1:]:
    try:
        print(url, urllib.request.urlopen(url, timeout=10).status)
    except OSError as problem:
        print(url, problem)
"""


def main() -> None:
    """Let a curious program go, and read the log."""
    host = sys.argv[1] if len(sys.argv) > 1 else "example.com"
    with Sandbox.create("base", network={"allow": [host]}) as sandbox:
        sandbox.files.write("/workspace/curious.py", CURIOUS)
        urls = f"https://{host}/ https://other.{host}/ http://10.0.0.1/ http://169.254.169.254/"
        print(sandbox.commands.run(f"python3 /workspace/curious.py {urls}").stdout)
        for entry in sandbox.network.get().entries:
            verdict = "allowed" if entry.allowed else f"refused: {entry.reason}"
            print(f"{entry.kind:5} {entry.name or entry.address}:{entry.port}  {verdict}")
        sandbox.network.update(preset="none")
        print("closed:", sandbox.commands.run(f"python3 /workspace/curious.py https://{host}/").stdout)


if __name__ == "__main__":
    main()
