"""The batch script is the command: what it does is tested in tests/archive."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "batch_nowcast.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_wrong_input_is_one_line_and_the_exit_code_of_the_command(tmp_path: Path) -> None:
    done = run(str(tmp_path / "no.nc"), "--model", str(tmp_path), "-o", str(tmp_path / "out"))
    assert done.returncode == 3
    assert done.stderr.startswith("cubecast: error: ")
    assert done.stderr.count("\n") == 1


def test_its_options_are_those_of_the_command() -> None:
    assert "--scheduler" in run("--help").stdout
