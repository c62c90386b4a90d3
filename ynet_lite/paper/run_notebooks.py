"""``make local``: every notebook on your data, executed copies under ``figures/local/``, the notebooks themselves untouched.

Reads ``YNET_DATASET``, ``YNET_PRESET``, ``YNET_DATA_DIR``, ``YNET_MANIFEST`` and ``YNET_CHANNELS``, as the notebooks do. Nothing
is compared: the outputs are those of your set. They may show pixels of patients, which is why they go where git ignores them.
A notebook that stops is stored up to its error, and the others still run.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from .. import paths
from ..config import Config
from ..sets import named

#: Seconds for one cell: a training in the full preset takes long on one core.
TIMEOUT = 6 * 3600


def notebooks(names: Sequence[str] = ()) -> list[Path]:
    """The project's notebooks in order, or those of them that start with one of ``names`` (``00``, ``03_training.ipynb``).

    Raises ``ValueError`` for a name that no notebook starts with, and where there is no notebook.
    """
    found = sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    wanted = [Path(name).stem for name in names]
    unknown = [name for name in wanted if not any(path.stem.startswith(name) for path in found)]
    if unknown or not found:
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(path.stem for path in found) or 'none'}")
    return [path for path in found if not wanted or path.stem.startswith(tuple(wanted))]


def default_folder() -> Path:
    """``figures/local/`` and the name of the set; for a CSV the name of the manifest."""
    dataset = Config.from_env().dataset
    named = Path(os.environ.get("YNET_MANIFEST") or dataset).stem if dataset == "csv" else dataset
    return paths.local_figures() / named


def execute(path: Path, target: Path) -> str:
    """Run one notebook in its own folder and write it to ``target``. Returns "" or what stopped it: the cell and the error.

    The copy holds the outputs up to there and none of an earlier run; pictures that the notebook keeps as files lie beside it.
    """
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        book,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # else each kernel warns that it listens on the loopback interface
    )
    # with another backend than the notebook's own no figure would be stored
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    # the kernel starts in another folder: what counts from here must not count from there
    environment |= {name: str(paths.yours(environment[name])) for name in paths.VARIABLES if environment.get(name)}
    stopped = ""
    try:
        client.execute(env=environment | {"YNET_LOCAL_FIGURES": str(target.resolve().parent)})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        number = max((n for n, cell in enumerate(code, start=1) if cell.execution_count is not None), default=1)
        kind, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        stopped = f"code cell {number}: " + f"{kind}: {message.strip()}".splitlines()[0].removesuffix(": ")
    with paths.replacing(target) as temporary:
        nbformat.write(book, temporary)
    return stopped


def main(argv: list[str] | None = None) -> int:
    """Run them all; the exit status is 1 when one stopped, 2 when nothing could be started."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.run_notebooks", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="which notebooks, by the start of their names (default: all)")
    parser.add_argument("--to", type=Path, help="folder of the executed copies (default: figures/local/ and the set's name)")
    given = parser.parse_args(argv)
    try:
        chosen, folder, cfg = notebooks(given.names), (given.to or default_folder()).resolve(), Config.from_env()
        named(cfg.dataset)
        if folder == paths.root() / "notebooks":
            raise ValueError("--to: the committed notebooks stay as they are; choose another folder")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = folder.relative_to(paths.root()) if folder.is_relative_to(paths.root()) else folder
    print(f"{len(chosen)} notebook(s) on {cfg.dataset}, preset {cfg.preset}; executed copies in {shown}", flush=True)
    failed = 0
    for path in chosen:
        print(f"{path.stem:24s}", end="", flush=True)
        began = time.perf_counter()
        stopped = execute(path, folder / path.name)
        failed += bool(stopped)
        print(f"{time.perf_counter() - began:6.0f} s  {stopped or 'done'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
