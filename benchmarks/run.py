"""All benchmarks in turn, each in a process of its own: a JSON file each, a plot, and one Markdown page.

Run: make bench, or python benchmarks/run.py --out build/bench [--device cuda] [--quick] [--only train_step growth]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "train_step": "Training step, inference and memory",
    "nowcasts": "Nowcasts",
    "growth": "Growth",
    "maps": "Maps",
    "loader": "Loader",
    "shuffle": "Shuffling",
}
ON_DEVICE = ("train_step", "nowcasts", "growth")
PLOTS = ("growth", "shuffle")


def command(part: str, options: argparse.Namespace) -> list[str]:
    """The command line of one part."""
    words = [sys.executable, str(HERE / f"{part}.py"), "--json", str(options.out / f"{part}.json")]
    if part in ON_DEVICE:
        words += ["--device", options.device]
    if part in PLOTS:
        words += ["--plot", str(options.out / f"{part}.png")]
    if part == "loader":
        words.insert(2, str(options.out / "archive"))
    return [*words, "--rounds", str(options.rounds), *(["--quick"] if options.quick else [])]


def page(parts: dict[str, str], options: argparse.Namespace) -> str:
    """Everything that the parts printed, as Markdown."""
    text = [f"# Benchmarks\n\n`python benchmarks/run.py {' '.join(sys.argv[1:])}`"]
    if options.device == "cpu":
        text.append("CUDA: not measured (`--device cuda` does).")
    for part, printed in parts.items():
        about = json.loads((options.out / f"{part}.json").read_text(encoding="utf-8"))["machine"]
        text.append(f"## {PARTS[part]}\n\n{', '.join(f'{k}: {v}' for k, v in about.items())}\n\n{printed.strip()}")
        text += [f"![{part}]({part}.png)"] if part in PLOTS else []
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Run the parts; what one of them cannot do does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    printed, failed = {}, []
    for part in options.only:
        print(f"== {part}", file=sys.stderr, flush=True)
        done = subprocess.run(command(part, options), check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(part)
        else:
            printed[part] = done.stdout
            (options.out / "bench.md").write_text(page(printed, options), encoding="utf-8")
            print(done.stdout, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
