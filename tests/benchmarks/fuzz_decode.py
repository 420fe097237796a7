"""Damaged images by the thousand through every way of decoding, each in a process that may crash or hang.

    python tests/benchmarks/fuzz_decode.py [--cases 100000] [--first 0] [--seed 0] [--data DIR] [--only KIND]

A case that is killed, takes longer than ``--patience`` seconds, takes more memory than ``--memory`` bytes or raises
anything but what it may is printed with its number, and the rest go on in a new process; the exit status is 1 if there
was one. ``--run NUMBER`` runs one case in this process. Prints one JSON line of counts at the end.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def files_of(options: argparse.Namespace) -> dict[str, list[bytes]]:
    from tests.tensor.fuzzing import made, real

    found = {kind: list(files) for kind, files in made().items()}
    for kind, files in (real(options.data) if options.data else {}).items():
        found[kind] = found.get(kind, []) + files
    return {kind: files for kind, files in found.items() if not options.only or kind in options.only}


def work(options: argparse.Namespace) -> None:
    """Cases from ``first`` on, each announced before it is run; a line a case."""
    from tests.tensor.fuzzing import case, check

    files = files_of(options)
    resource.setrlimit(resource.RLIMIT_AS, (options.memory, options.memory))
    for number in range(options.first, options.first + options.cases):
        print("begin", number, flush=True)
        faulthandler.dump_traceback_later(options.patience, exit=True)
        began = time.process_time()
        kind, damage, _ = case(options.seed, number, files)
        try:
            outcome = "decoded" if check(options.seed, number, files) else "refused"
        except Exception as error:  # noqa: BLE001 - it is the finding
            outcome = f"FAILED {type(error).__name__}: {error} at {traceback.extract_tb(error.__traceback__)[-1]}"
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps([number, kind, damage, outcome, round(time.process_time() - began, 3)]), flush=True)


def hunt(options: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    findings, at, end = [], options.first, options.first + options.cases
    slowest = (0.0, -1)
    said = 0
    while at < end:
        command = [sys.executable, __file__, "--work", "--first", str(at), "--cases", str(end - at)]
        command += ["--seed", str(options.seed), "--patience", str(options.patience), "--memory", str(options.memory)]
        command += ["--data", str(options.data)] if options.data else []
        command += ["--only", *options.only] if options.only else []
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
            assert child.stdout is not None
            running = at
            for line in child.stdout:
                if line.startswith("begin"):
                    running = int(line.split()[1])
                    continue
                number, kind, damage, outcome, seconds = json.loads(line)
                at = number + 1
                counts[f"{kind} {outcome.split()[0].lower()}"] += 1
                slowest = max(slowest, (seconds, number))
                if outcome.startswith("FAILED"):
                    findings.append((number, kind, damage, outcome))
                    print(findings[-1], flush=True)
            status = child.wait()
            said += errors.tell()
            if at < end:
                errors.seek(max(0, errors.tell() - 3000))
                findings.append((running, "died", status, errors.read().decode(errors="replace")))
                print(findings[-1], flush=True)
                at = running + 1
    outcome = {"cases": options.cases, "findings": len(findings), **dict(sorted(counts.items()))}
    outcome |= {"slowest_cpu_s": slowest[0], "slowest_case": slowest[1], "stderr_bytes": said}
    print(json.dumps(outcome))
    return bool(findings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAHUB_TEST_DATA"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--patience", type=float, default=30.0)
    parser.add_argument("--memory", type=int, default=8 << 30)
    parser.add_argument("--run", type=int)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data = Path(options.data) if options.data else None
    if options.run is not None:
        from tests.tensor.fuzzing import case, check

        files = files_of(options)
        print(*case(options.seed, options.run, files)[:2])
        print("decoded" if check(options.seed, options.run, files) else "refused")
        return 0
    return work(options) or 0 if options.work else hunt(options)


if __name__ == "__main__":
    sys.exit(main())
