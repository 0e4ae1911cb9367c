"""Collect each notebook of nbs/ as one pytest test.

It runs top to bottom in a kernel of its own, as nbdev's directives want it."""

import os
import time
from queue import Empty

import pytest


def pytest_addoption(parser):
    parser.addoption(
        '--nb-flags',
        default='',
        help='flags of tst_flags to run as well, e.g. "slow cuda"',
    )
    parser.addoption(
        '--nb-timeout', type=int, default=300, help='seconds that one cell may take'
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "With `-n 2`, a worker that has nothing left takes tests from the other."
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collect_file(file_path, parent):
    if (
        file_path.suffix == '.ipynb'
        and file_path.parent.name == 'nbs'
        and file_path.name[0] not in '_.'
    ):
        return NotebookFile.from_parent(parent, path=file_path)


class NotebookFile(pytest.File):
    def collect(self):
        yield NotebookItem.from_parent(self, name='run')


class NotebookItem(pytest.Item):
    def runtest(self):
        import nbformat

        nb = nbformat.read(self.path, 4)
        drop_skipped(nb, self.config.getoption('--nb-flags').split())
        run_notebook(nb, self.path.parent, self.config.getoption('--nb-timeout'))

    def repr_failure(self, excinfo, style=None):
        from nbclient.exceptions import CellControlSignal

        if isinstance(excinfo.value, CellControlSignal):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, 0, self.path.name


def drop_skipped(nb, flags=()):
    """Empty the cells that nbdev would not run.

    These are `eval: false` and the flags of `tst_flags` that were not asked for."""
    from execnb.nbio import dict2nb
    from nbdev.config import get_config
    from nbdev.process import extract_directives

    skip = set(get_config().tst_flags.split()) - set(flags)
    for c in nb.cells:
        if c.cell_type != 'code':
            continue
        cell = dict2nb(dict(cells=[dict(c)])).cells[0]
        found = extract_directives(cell, remove=False)
        if skip & found.keys() or found.get('eval:', [''])[0].lower() == 'false':
            c.source = ''


def run_notebook(nb, folder, timeout):
    "Execute `nb` in place in a fresh kernel started in `folder`."
    from jupyter_core.utils import ensure_async
    from nbclient import NotebookClient

    class Client(NotebookClient):
        async def async_start_new_kernel_client(self):
            kc = await super().async_start_new_kernel_client()
            get = kc.shell_channel.get_msg

            # A reply can sit unseen after a widget update (jupyter/nbclient#312):
            # look twice a second.
            async def get_msg(timeout=None):
                end = None if timeout is None else time.monotonic() + timeout
                while True:
                    try:
                        return await ensure_async(get(timeout=0.5))
                    except Empty:
                        if end is not None and time.monotonic() >= end:
                            raise

            kc.shell_channel.get_msg = get_msg
            return kc

    client = Client(
        nb,
        timeout=timeout,
        kernel_name='python3',
        record_timing=False,
        resources={'metadata': {'path': str(folder)}},
    )
    client.execute(env=dict(os.environ, IN_TEST='1'))
    return nb
