"""Wall time of commands that must feel instant, beside an empty interpreter in the same run.

    python tests/benchmarks/bench_cli.py [--from DIR] [--runs 15]

Prints a JSON line each: `datahub --help`, `datahub list`, and, where DIR holds mnist's files, a second `datahub fetch`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def once(command: list[str], environ: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="from_", help="folder that holds mnist/<published files>")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "DATAHUB_HOME": home}
        datahub = [sys.executable, "-m", "datahub"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "--help": [*datahub, "--help"],
            "list": [*datahub, "list"],
        }
        if options.from_:
            fetch = [*datahub, "fetch", "mnist", "--from", options.from_]
            subprocess.run(fetch, env=environ, check=True)
            commands["second fetch mnist"] = fetch
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.runs):
            for name, command in commands.items():
                times[name].append(once(command, environ))
    for name, found in times.items():
        row = {"command": name, "median_ms": statistics.median(found), "min_ms": min(found), "max_ms": max(found)}
        print(json.dumps({key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()}))


if __name__ == "__main__":
    main()
