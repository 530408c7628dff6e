"""`python -m generator`: writes every generated file; `--check` only says which are stale, and fails."""

import argparse
import subprocess
import sys

from generator._files import ROOT, outputs, stale

SNAPSHOT = ROOT / "tests" / "api" / "public_api.txt"


def main() -> int:
    """Writes the files that differ, or names them."""
    parser = argparse.ArgumentParser(prog="python -m generator", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something is stale")
    options = parser.parse_args()
    found = stale()
    if options.check:
        sys.stdout.writelines(f"stale: {path}; run `make generate`\n" for path in found)
        return int(bool(found))
    texts = outputs()
    for name in found:
        path = ROOT / name
        if path in texts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
        else:
            path.unlink()
        sys.stdout.write(f"{name}\n")
    # In a process of its own, which sees the exports just written.
    words = [sys.executable, str(ROOT / "tests" / "api" / "test_public_api.py")]
    SNAPSHOT.write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
