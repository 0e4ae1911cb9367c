"""A figure that moves, in a live JupyterLab: opened, run, moved, and read from Python."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

import nbformat
import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import look

CELLS = [
    'from flowbook.widgets import moving',
    "w = moving('template', dict(points=201), 'A curve of a density, and a slider that "
    "stretches its axis: the curve sinks.'); w",
]


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab of its own, with one notebook."
    if importlib.util.find_spec('jupyterlab') is None or not look.chromium():
        pytest.skip('no JupyterLab or no Chromium here: no figure moved in a notebook')
    cells = [nbformat.v4.new_code_cell(c) for c in CELLS]
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3'))
    nb = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(nb, tmp_path / 'moving.ipynb')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    folders = {
        f'JUPYTER_{k}_DIR': str(tmp_path / k) for k in ('CONFIG', 'RUNTIME', 'DATA')
    }
    environment = os.environ | folders | dict(HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    options = [
        '--no-browser',
        '--allow-root',
        '--ServerApp.ip=127.0.0.1',
        f'--ServerApp.port={port}',
        '--IdentityProvider.token=',
        '--ServerApp.disable_check_xsrf=True',
        f'--ServerApp.root_dir={tmp_path}',
        '--LabApp.expose_app_in_browser=True',
    ]
    with open(tmp_path / 'server.log', 'w') as log:
        server = subprocess.Popen(
            [sys.executable, '-m', 'jupyterlab', *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            time.sleep(0.2)
        yield f'http://127.0.0.1:{port}/doc/tree/moving.ipynb?reset'
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


READY = """async () => {
  const panel = window.jupyterapp.shell.currentWidget
  await panel.context.ready
  await panel.sessionContext.ready
  const kernel = panel.sessionContext.session.kernel
  await kernel.info
  await kernel.requestExecute({ code: '1' }).done
}"""
ASK = """async code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
  let said = ''
  const asked = kernel.requestExecute({ code })
  asked.onIOPub = m => { said += m.content.text ?? '' }
  await asked.done
  return said.trim()
}"""


def test_a_figure_moves_in_jupyterlab_and_python_hears_of_it(lab):
    with look.browser() as chrome:
        page = chrome.new_page(viewport=dict(width=1100, height=900))
        page.goto(lab)
        page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=90_000)
        page.wait_for_function('window.jupyterapp?.shell.currentWidget', timeout=60_000)
        page.evaluate(READY)
        page.evaluate(
            "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
        )
        page.wait_for_selector('.fb', timeout=90_000)
        says = page.locator('.fb-says')
        first = says.inner_text()
        page.locator('.fb input[type=range]').first.focus()
        page.keyboard.press('ArrowRight')
        page.wait_for_function(
            'first => document.querySelector(".fb-says").textContent !== first',
            arg=first,
        )
        page.wait_for_timeout(500)
        assert page.evaluate(ASK, 'print(w.values["a"])') == '1.55'
        begin = time.perf_counter()
        page.evaluate(ASK, 'w.values = dict(a=2, b=0, z=0.5)')
        page.wait_for_function(
            'document.querySelector(".fb-says").textContent.includes("x = 1.00")'
        )
        assert time.perf_counter() - begin < 3
        box = page.locator('.fb').bounding_box()
        assert box['width'] > 400  # not squeezed
