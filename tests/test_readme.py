"""Every snippet of README.md and docs/*.md runs, as it stands there.

A document's blocks run in order, in one temporary folder that holds copies of `data` and `scripts`: ```python blocks
in one namespace, ```sh blocks in bash with the commands of this environment, unless the fence says ```sh no-run.
Documents share nothing. Other fences are not run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECONDS = 300
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, what the fence says besides, its text, and the line of its first line."""

    language: str
    info: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text that are to be run."""
    found = [Block(m[1], m[2].strip(), m[3], text[: m.start(3)].count("\n") + 1) for m in FENCE.finditer(text)]
    return [b for b in found if b.language == "python" or (b.language == "sh" and b.info != "no-run")]


def run(document: Path) -> None:
    """Run the blocks of one document in the current folder."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks(document.read_text(encoding="utf-8")):
        where = f"{document.name}, line {block.line}"
        if block.language == "python":
            # The empty lines before give tracebacks the line numbers of the document.
            exec(compile("\n" * (block.line - 1) + block.code, str(document), "exec"), namespace)
            continue
        bash = ["bash", "-euo", "pipefail", "-c", block.code]
        done = subprocess.run(bash, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{block.code}\n{done.stdout}{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with what a reader has beside him in a checkout, made the current one."""
    for name in ("data", "scripts"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_snippet_of_a_document_runs(document: Path, folder: Path) -> None:
    run(document)


def test_blocks_share_a_folder_and_a_namespace_in_order(folder: Path) -> None:
    (folder / "a.md").write_text(
        "```sh\necho 3 > n\n```\n"
        "```python\nfrom pathlib import Path\nn = int(Path('n').read_text())\n```\n"
        "```sh no-run\nfalse\n```\n"
        "```text\nnot code\n```\n"
        "```python\nPath('m').write_text(str(n + 1))\n```\n"
    )
    run(folder / "a.md")
    assert (folder / "m").read_text() == "4"


def test_a_failing_block_fails_and_names_its_line(folder: Path) -> None:
    (folder / "a.md").write_text("Text.\n\n```sh\nls nowhere | cat\n```\n")
    with pytest.raises(AssertionError, match=r"a\.md, line 4: exit code 2"):
        run(folder / "a.md")
    (folder / "b.md").write_text("Text.\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run(folder / "b.md")
    assert caught.traceback[-1].lineno == 4  # counted from 0: line 5 of the document
