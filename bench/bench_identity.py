"""Identity consistency of the whole product on labelled photographs, in random arrival orders.

usage: bench_identity.py [--set household …] [--orders 3] [--parts 5]
                         [--pack builtin|yunet-mobilefacenet]

For each set and order: the set is dealt at random into parts, each part is ingested from files
by the product after the other, `people export --jsonl` is scored by the label folder's own
`score.py`.
Needs the labelled photographs (KALEIDOSCOPE_SHARED, or `shared` beside the checkout).
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
from pathlib import Path

from product import started

HELP = argparse.RawTextHelpFormatter
ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("KALEIDOSCOPE_SHARED", ROOT.parent / "shared"))
FIGURES = ("consistency", "detected", "precision", "recall", "ids_per_person", "false_faces")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", nargs="+", default=["household", "people100", "all"])
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--pack", default="builtin", choices=["builtin", "yunet-mobilefacenet"])
    options = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"no labelled photographs at {SHARED}: set KALEIDOSCOPE_SHARED")
    for name in options.set:
        runs = [one_order(name, seed, options) for seed in range(options.orders)]
        for clear in (False, True):
            scores = [run[clear] for run in runs]
            cells = [
                f"{figure} {statistics.mean(s[figure] for s in scores):.4g}"
                + f" [{min(s[figure] for s in scores):.4g}, {max(s[figure] for s in scores):.4g}]"
                for figure in FIGURES
            ]
            print(f"MEAN {options.pack} {name}{' --clear' if clear else ''}: {'; '.join(cells)}")


def one_order(name: str, seed: int, options: argparse.Namespace) -> dict[bool, dict[str, float]]:
    env, pack = pack_of(options.pack)
    with tempfile.TemporaryDirectory() as scratch, started(env, pack) as product:
        target = Path(scratch) / "photos-set"
        make = [sys.executable, str(SHARED / "faces" / "make_set.py"), name, str(target)]
        subprocess.run([*make, "--parts", str(options.parts), "--seed", str(seed)], check=True)
        began = time.perf_counter()
        for part in sorted(target.iterdir()):
            product.ingest(part)
        seconds = time.perf_counter() - began
        export = Path(scratch) / "people.jsonl"
        export.write_text(product.run("people", "export", "--jsonl"))
        scores = {clear: score(export, name, clear) for clear in (False, True)}
    for clear, figures in scores.items():
        line = ", ".join(f"{f} {figures[f]}" for f in FIGURES)
        print(
            f"{name} order {seed}{' --clear' if clear else ''}: {line} ({seconds:.0f} s)",
            flush=True,
        )
    return scores


def pack_of(name: str) -> tuple[dict[str, str], list[str] | None]:
    """The environment that chooses a pack, and the words that import it (None: built in)."""
    if name == "builtin":
        return {}, None
    models = SHARED / "models"
    networks = [str(models / "yunet_n_dynamic.onnx"), str(models / "MobileFaceNet_foamliu.onnx")]
    words = [*networks, "--name", name, "--reading", "imagenet"]
    return {"KALEIDOSCOPE_ML_PACK": name}, words


def score(export: Path, name: str, clear: bool) -> dict[str, float]:
    words = [
        sys.executable,
        str(SHARED / "faces" / "score.py"),
        str(export),
        "--set",
        name,
        "--json",
    ]
    done = subprocess.run([*words, *(["--clear"] if clear else [])], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
