"""Figures that move and live controls in a JupyterLab: opened, run, moved, read."""

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

MOVING = [
    'from flowbook.widgets import moving',
    "w = moving('template', dict(points=201), 'A curve of a density, and a slider that "
    "stretches its axis: the curve sinks.'); w",
]
LIVE = [
    'from flowbook.live import digits, live_fit',
    'fit = live_fit(device="cpu"); fit',
    'knobs = digits(device="cpu"); knobs',
]


@pytest.fixture
def lab(tmp_path, request):
    "The address of a JupyterLab of its own, with one notebook of the cells asked for."
    if importlib.util.find_spec('jupyterlab') is None or not look.chromium():
        pytest.skip('no JupyterLab or no Chromium here: no figure moved in a notebook')
    cells = [nbformat.v4.new_code_cell(c) for c in request.param]
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


def run_all(chrome, lab):
    "The page of the notebook after all of its cells were asked to run."
    page = chrome.new_page(viewport=dict(width=1100, height=900))
    page.goto(lab)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=90_000)
    page.wait_for_function('window.jupyterapp?.shell.currentWidget', timeout=60_000)
    page.evaluate(READY)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    return page


@pytest.mark.parametrize('lab', [MOVING], indirect=True, ids=['moving'])
def test_a_figure_moves_in_jupyterlab_and_python_hears_of_it(lab):
    with look.browser() as chrome:
        page = run_all(chrome, lab)
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


CHANGED = """async ([picture, what]) => {
  const image = document.querySelectorAll('.widget-image')[picture]
  const first = image.src
  const start = performance.now()
  what === 'press' ? window.pressed.click() : window.pressed.dispatchEvent(
    new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }))
  while (image.src === first) await new Promise(requestAnimationFrame)
  await image.decode()
  return performance.now() - start
}"""
PRESS = "button => { window.pressed = button }"


def milliseconds(page, picture, control, what):
    "From a press of a control to another picture, the least of five; that is on screen."
    page.evaluate(PRESS, control.element_handle())
    times = []
    for _ in range(5):
        times.append(page.evaluate(CHANGED, [picture, what]))
        page.wait_for_timeout(200)
    return min(times)


@pytest.mark.parametrize('lab', [LIVE], indirect=True, ids=['live'])
def test_live_controls_train_and_draw_digits_in_jupyterlab(lab):
    with look.browser() as chrome:
        page = run_all(chrome, lab)
        page.wait_for_selector('.widget-image >> nth=2', timeout=120_000)
        button = {
            name: page.locator(f'.jupyter-button:has-text("{name}")')
            for name in ('Start', 'Pause', 'Step', 'Reset')
        }
        step = milliseconds(page, 0, button['Step'], 'press')
        assert page.evaluate(ASK, 'print(len(fit.training.losses))') == '5'
        button['Start'].click()
        page.wait_for_function(
            "document.querySelector('.widget-label:last-child').textContent"
            ".match(/^step [1-9]\\d/)"
        )
        start = time.perf_counter()
        assert page.evaluate(ASK, 'print(fit.task is not None)') == 'True'  # heard
        answer = time.perf_counter() - start
        button['Pause'].click()
        page.wait_for_function(
            "[...document.querySelectorAll('button[disabled]')]"
            ".some(b => b.textContent === 'Pause')"
        )
        assert page.evaluate(ASK, 'print(fit.task)') == 'None'
        button['Reset'].click()
        slider = page.locator('.widget-slider', has_text='temperature')
        cooler = milliseconds(page, 1, slider.locator('.noUi-handle'), 'key')
        assert page.evaluate(ASK, 'print(fit.training.losses)') == '[]'
        temperature = page.evaluate(ASK, 'print(knobs.choices["temperature"].value)')
        assert float(temperature) == pytest.approx(0.95)  # five steps up
        print(f'Step {step:.0f} ms, slider {cooler:.0f} ms, a cell {answer:.1f} s')
        assert max(step, cooler) < 3_000 and answer < 5
