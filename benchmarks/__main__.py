"""`python -m benchmarks [WORD ...]`: run the benchmarks whose names contain a word (all by default), one after the other.

Each prints ours / bound / peer, interleaved in one run and pinned to one core; peers that are not installed are named as missing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Each benchmark in a process of its own, so that none warms the memory for the next; the number that failed."""
    words = sys.argv[1:]
    failed = 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        if not words or any(word in script.stem for word in words):
            print(f"\n== {script.stem.removeprefix('bench_')} ==", flush=True)
            failed += subprocess.run([sys.executable, str(script)]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
