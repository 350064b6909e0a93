"""Trying a built root filesystem before anyone depends on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cove.host.templates.confinement import Confinement, ConfinementUnavailable
from cove.host.templates.layers import StepReporter
from cove.models.errors import error

CHECK_TIMEOUT = 120.0


def run_checks(
    commands: Sequence[Sequence[str]],
    layers: Sequence[Path],
    scratch: Path,
    *,
    environment: Mapping[str, str],
    report: StepReporter,
) -> tuple[str, ...]:
    """Run each command inside the merged layers; returns notes on what could not be tried.

    Args:
        layers: the topmost first.
        scratch: a directory that does not exist yet; it is gone afterwards.

    Raises:
        CoveError: TEMPLATE_BUILD_FAILED when a command fails.
    """
    confinement = Confinement(layers, scratch)
    try:
        for index, command in enumerate(commands):
            report(f"Checking {' '.join(command)[:40]}", index / len(commands))
            done = confinement.run(command, environment=environment, timeout=CHECK_TIMEOUT)
            if done.exit_code != 0:
                raise error(
                    "TEMPLATE_BUILD_FAILED",
                    f"The template was built, but `{' '.join(command)}` fails inside it "
                    f"with exit code {done.exit_code}: {done.output[-1000:]}",
                    remedy="Report this with the output of `cove doctor`.",
                )
    except ConfinementUnavailable as reason:
        return (f"checks: left out, this host gives no namespaces: {reason}",)
    finally:
        confinement.close()
    return ()
