"""Figures that move: their arithmetic against the book's own code, and in a browser."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from flowbook.core import Compose, Flow, StandardNormal
from flowbook.coupling import Coupling
from flowbook.realnvp import Affine
from flowbook.records import read_run
from flowbook.widgets import (
    flow_state,
    image_flow_state,
    module,
    page_normals,
    squeezed,
)
from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import look
import stills

WIDGETS = ROOT / 'flowbook' / 'assets' / 'widgets'
SHARED = {'lib', 'flow2d'}
NAMES = sorted(p.stem for p in WIDGETS.glob('*.mjs') if p.stem not in SHARED)
FIGURES = dict(stills.figures())
MOST = 250 * 1024  # bytes of a figure, with its state


def node(imports, value, given=None):
    "What JavaScript makes of `given`: a value, with the names that are imported."
    if not shutil.which('node'):
        pytest.skip(
            'no Node on this machine: the arithmetic of the figures was NOT tested'
        )
    script = f"""{imports}
    let text = ''
    for await (const piece of process.stdin) text += piece
    const given = JSON.parse(text)
    console.log(JSON.stringify({value}))"""
    script = script.replace("'./", f"'{WIDGETS.as_uri()}/")
    done = subprocess.run(
        ['node', '--input-type=module', '-e', script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('name', NAMES)
def test_a_module_is_one_text_that_node_can_read(name, tmp_path):
    file = tmp_path / f'{name}.mjs'
    file.write_text(module(name), encoding='utf-8')
    kind = node(f"import widget from '{file.as_uri()}'", 'typeof widget.render')
    assert kind == 'function'
    assert 'http' not in module(name).replace('http://www.w3.org/2000/svg', '')
    assert 'eval(' not in module(name)


@pytest.mark.parametrize('name', NAMES)
def test_a_module_is_shown_on_some_page(name):
    assert any(values['name'] == name for values in FIGURES.values())


@pytest.mark.parametrize('name', FIGURES)
def test_a_page_holds_the_module_as_it_is_and_a_still_of_it(name):
    values = FIGURES[name]
    assert values['_esm'] == module(values['name']), 'execute the page again'
    known = json.loads(stills.DIGESTS.read_text(encoding='utf-8'))
    assert known.get(name) == stills.digest(values), 'run tools/stills.py'
    still = stills.STILLS / f'{name}.png'
    assert still.stat().st_size <= 150 * 1024
    size = len(values['_esm']) + len(json.dumps(values['state']))
    assert size <= MOST, f'{size / 1024:.0f} KiB'


@pytest.fixture
def open_figure(tmp_path):
    "A browser page with one figure on it, and the list of what went wrong."
    if not look.chromium():
        pytest.skip('no Chromium on this machine: no figure was moved')
    with look.browser() as chrome, look.served(tmp_path) as address:

        def show(name, width=656, **options):
            body = stills.as_html(FIGURES[name], 'still')
            text = stills.PAGE.format(body=body).replace('640px', 'auto')
            if not (tmp_path / 'site').exists():
                (tmp_path / 'site').symlink_to(ROOT / 'site')
            (tmp_path / 'index.html').write_text(text, encoding='utf-8')
            page = chrome.new_page(viewport=dict(width=width, height=900), **options)
            wrong = []
            page.on('pageerror', lambda e: wrong.append(str(e)))
            page.on('console', lambda m: m.type == 'error' and wrong.append(m.text))
            page.route('**/*.png', lambda route: route.fulfill(body=b''))
            page.goto(address)
            page.wait_for_selector('.fb', timeout=20_000)
            return page, wrong

        yield show


def says(page):
    return page.locator('.fb-says').inner_text()


TIMED = """() => [...document.querySelectorAll('.fb input[type=range]')].map(e => {
  const times = [...Array(5)].map((_, i) => {
    e.value = +e.min + (e.max - e.min) * (i + 1) / 6
    const begin = performance.now()
    e.dispatchEvent(new Event('input'))
    return performance.now() - begin
  })
  return times.sort((a, b) => a - b)[2]
})"""


@pytest.mark.parametrize('name', FIGURES)
def test_a_figure_answers_to_the_keyboard_to_a_drag_and_to_reset(name, open_figure):
    page, wrong = open_figure(name)
    first = says(page)
    assert first
    states = {first}
    for control in page.locator('.fb input[type=range]').all():
        control.focus()
        page.keyboard.press('ArrowLeft')
        page.keyboard.press('ArrowLeft')
        page.keyboard.press('ArrowRight')
        states.add(says(page))
    for box in page.locator('.fb select').all():
        box.select_option(index=box.locator('option').count() - 1)
        states.add(says(page))
    for dot in page.locator('.fb-handle:visible').all():
        dot.focus()
        page.keyboard.press('ArrowRight')
        page.keyboard.press('ArrowUp')
        states.add(says(page))
        spot = dot.bounding_box()
        x, y = spot['x'] + spot['width'] / 2, spot['y'] + spot['height'] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 25, y - 20, steps=3)
        page.mouse.up()
        states.add(says(page))
    assert len(states) > 1, 'nothing moved'
    page.get_by_role('button', name='Reset').click()
    assert says(page) == first
    assert wrong == []


@pytest.mark.parametrize('name', FIGURES)
def test_a_figure_is_quick_and_fits_a_small_phone(name, open_figure):
    page, wrong = open_figure(name, width=320)
    assert page.evaluate('document.documentElement.scrollWidth') <= 320
    slow = [t for t in page.evaluate(TIMED) if t > 50]
    assert not slow, f'{max(slow):.0f} ms'
    assert look.serious(page) == []
    assert wrong == []


def test_the_address_brings_a_figure_back(open_figure):
    name = '96_widgets-template'
    page, _ = open_figure(name)
    page.locator('.fb input[type=range]').first.focus()
    page.keyboard.press('ArrowRight')
    page.wait_for_function("location.hash.includes('a=1.55')", timeout=5000)
    shown = says(page)
    page.reload()
    page.wait_for_selector('.fb')
    assert says(page) == shown


# The arithmetic, module by module.


def test_stretch():
    given = dict(a=-2, b=1)
    made = node(
        "import { stretch } from './template.mjs'", 'stretch(0.8, given)', given
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    law = torch.distributions.TransformedDistribution(
        normal, torch.distributions.AffineTransform(1.0, -2.0)
    )
    x = torch.tensor(-0.6)
    assert made['x'] == pytest.approx(x.item())
    assert made['density'] == pytest.approx(law.log_prob(x).exp().item(), abs=1e-6)


CHAIN = """given.points.map(z => {
  const flow = chain(given.layers)
  const { states, sums } = flow.trace(z)
  return { states, sums, back: flow.inverse(states.at(-1)), half: flow.inverse(states[4], 4)[0] }
})"""


def test_a_chain_goes_where_torch_goes_and_back():
    flow, _ = read_run('moons')
    z = flow.base.sample((20,), torch.Generator().manual_seed(0))
    given = dict(layers=flow_state(flow), points=z.tolist())
    told = node("import { chain } from './flow2d.mjs'", CHAIN, given)
    with torch.no_grad():
        states = [(state, log_det) for state, log_det in flow.trace(z)]
    for i, made in enumerate(told):
        for k, (state, _) in enumerate(states):
            assert made['states'][k] == pytest.approx(state[i].tolist(), abs=1e-4)
        log_p = flow.base.log_prob(z[i]).item() - made['sums'][-1]
        x = states[-1][0][i : i + 1]
        assert log_p == pytest.approx(flow.log_prob(x).item(), abs=1e-4)
        assert made['back'][0] == pytest.approx(z[i].tolist(), abs=1e-5)
        assert made['back'][1] == pytest.approx(-made['sums'][-1], abs=1e-5)
        assert made['half'] == pytest.approx(z[i].tolist(), abs=1e-5)


DIGITS = """(() => {
  const data = new Uint8Array(readFileSync(given.file))
  const flow = imageFlow(given.state, data)
  const z = latent(given.values, 784)
  const all = states(flow, z)
  const begin = performance.now()
  for (let i = 0; i < 5; i++) states(flow, z)
  const ms = (performance.now() - begin) / 5
  return { z: [...z], x: [...pixels(flow, all.at(-1))], half: [...all[2]], ms }
})()"""


@pytest.mark.parametrize('seed', [0, 3, 11])
def test_digits_are_those_of_torch_with_the_same_weights(seed):
    flow, _ = read_run('mnist-realnvp')
    state, data = image_flow_state(flow)
    file = ROOT / 'site' / 'models' / 'digits.bin'
    assert file.read_bytes() == data, 'run tools/stills.py'
    assert len(data) <= 2e6
    values = dict(seed=seed, temperature=0.7, way=[0.5, -0.25])
    made = node(
        "import { imageFlow, latent, pixels, states } from './digits.mjs'\n"
        "import { readFileSync } from 'node:fs'",
        DIGITS,
        dict(state=state, file=str(file), values=values),
    )
    noise = [page_normals(3 * seed + k, 784) for k in range(3)]
    z = (0.7 * noise[0] + 0.5 * noise[1] - 0.25 * noise[2]).float()
    torch.testing.assert_close(torch.tensor(made['z']), z, atol=1e-5, rtol=0)
    small = squeezed(flow)
    with torch.no_grad():
        x, _ = small.bijection(z)
        half = z
        for layer in small.bijection.layers[0].layers[:2]:
            half, _ = layer(half)
    torch.testing.assert_close(torch.tensor(made['half']), half, atol=1e-4, rtol=1e-4)
    grey = torch.tensor(made['x'])
    torch.testing.assert_close(grey, x.flatten() / 256, atol=1e-3, rtol=0)
    assert made['ms'] < 100


def test_a_digit_appears_within_a_second_of_the_first_touch(open_figure):
    page, wrong = open_figure('index-digits')
    painted = 'document.querySelector("canvas").toDataURL()'
    before = page.evaluate(painted)
    waited = page.evaluate("""async () => {
      const begin = performance.now()
      document.querySelector('.fb button').click()
      while (document.querySelector('.fb-says').textContent.includes('on their way'))
        await new Promise(done => setTimeout(done, 10))
      return performance.now() - begin
    }""")
    assert waited < 1000, f'{waited:.0f} ms'
    assert page.evaluate(painted) != before
    assert wrong == []


FIT = """(() => {
  const p = Float64Array.from(begin(given.seed), (v, i) => v + 0.1 * Math.sin(i))
  const { value, gradient } = loss(p, given.points)
  const data = given.points.map(z => toData(p, z))
  const moved = p.slice(), memory = {}
  for (let i = 0; i < 3; i++) step(moved, loss(moved, given.points).gradient, memory, 0.01)
  return { p: [...p], value, gradient: [...gradient], data, moved: [...moved] }
})()"""


def flow_of_numbers(p):
    "The flow of `fit.mjs` as the book builds it, from its row of numbers."
    size, hidden = 66, 16
    stack = [
        Coupling(2, Affine(2.0), flip=k % 2 == 0, hidden=[hidden]) for k in range(8)
    ]
    flow = Flow(StandardNormal(2), Compose(*stack)).double()
    for k, layer in enumerate(stack):
        own = p[k * size : (k + 1) * size]
        read, bias, rows, ends = own.split([hidden, hidden, 2 * hidden, 2])
        first, last = (m for m in layer.net.modules() if isinstance(m, torch.nn.Linear))
        first.weight.data, first.bias.data = read[:, None], bias
        last.weight.data, last.bias.data = rows.view(2, hidden), ends
    return flow


def test_a_flow_that_trains_in_the_page_has_the_gradient_of_torch():
    points = torch.randn(
        40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    names = "import { begin, loss, step, toData } from './fit.mjs'"
    made = node(names, FIT, dict(seed=2, points=points.tolist()))
    p = torch.tensor(made['p'], dtype=torch.float64)
    flow = flow_of_numbers(p)
    value = -flow.log_prob(points).mean()
    assert made['value'] == pytest.approx(value.item(), abs=1e-9)
    value.backward()
    order = [
        q.grad.flatten() for layer in flow.bijection.layers for q in layer.parameters()
    ]
    torch.testing.assert_close(
        torch.tensor(made['gradient'], dtype=torch.float64),
        torch.cat(order),
        atol=1e-9,
        rtol=1e-9,
    )
    x, _ = flow.bijection(points)
    torch.testing.assert_close(
        torch.tensor(made['data'], dtype=torch.float64), x.detach()
    )
    adam = torch.optim.Adam(flow.parameters(), lr=0.01)
    for _ in range(3):
        adam.zero_grad()
        (-flow.log_prob(points).mean()).backward()
        adam.step()
    moved = torch.cat([q.detach().flatten() for q in flow.parameters()])
    torch.testing.assert_close(
        torch.tensor(made['moved'], dtype=torch.float64), moved, atol=1e-6, rtol=1e-5
    )
