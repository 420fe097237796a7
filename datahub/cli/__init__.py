"""The command line: click commands, one file a group, loaded only when they are named.

`main` is the entry point. It maps errors to one line on stderr and to the exit codes of `datahub.core.errors`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from datahub.cli.app import root, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``datahub ARGUMENTS`` and exit with its code."""
    sys.exit(run(root, list(sys.argv[1:] if arguments is None else arguments)))
