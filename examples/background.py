"""A long program in the background: its output as it comes, its files as they appear, its result as a directory.

cove serve --dev        # in another terminal
python examples/background.py [DIRECTORY FOR THE RESULTS]
"""

import sys
import tempfile
from pathlib import Path

from cove import Sandbox
from cove.sdk import ResultEvent

TRAINING = """
import json, pathlib, time
results = pathlib.Path("/workspace/results")
results.mkdir()
for epoch in range(1, 4):
    time.sleep(0.3)
    (results / f"epoch-{epoch}.json").write_text(json.dumps({"epoch": epoch, "loss": 1 / epoch}))
    print(f"epoch {epoch}: loss {1 / epoch:.2f}", flush=True)
"""


def main() -> None:
    """Start, follow, fetch."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    with Sandbox.create(timeout_seconds=120) as sandbox:
        training = sandbox.run_code_background(TRAINING, name="training", timeout=60)
        print("started; the sandbox is free for other things:", sandbox.run_code("6 * 7").result)
        for event in training.events():
            if isinstance(event, ResultEvent):
                print(f"ended with {event.result.exit_code} after {event.result.execution_time:.1f} s")
            else:
                print("  ", event.data, end="")
        copied = sandbox.files.download_dir("/workspace/results", target)
        print(f"{copied.entries} files are in {target}")


if __name__ == "__main__":
    main()
