"""Where a script keeps what it measures with: a directory of its own, so that nobody else's is ever removed."""

import contextlib
import pathlib
import shutil
import tempfile

from .ending import Wrong, held


@contextlib.contextmanager
def workdir(parent, tool):
    """An empty directory `tidegate-TOOL-…` below `parent`, removed with all that is in it at the end of the block.

    `parent`, and what is above it, is removed as well if it was made here and nothing else is in it.
    """
    parent = pathlib.Path(parent).resolve()
    above = [path for path in (parent, *parent.parents) if not path.exists()]
    home = None
    try:
        with held():
            try:
                parent.mkdir(parents=True, exist_ok=True)
                home = pathlib.Path(tempfile.mkdtemp(prefix=f"tidegate-{tool}-", dir=parent))
            except OSError as error:
                raise Wrong(f"no data directory can be made in {parent}: {error.strerror}") from None
        yield home
    finally:
        with held():
            if home is not None:
                shutil.rmtree(home, ignore_errors=True)
            for path in above:
                with contextlib.suppress(OSError):
                    path.rmdir()
