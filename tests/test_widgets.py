"""Figures that move: their arithmetic against the book's own code, and in a browser."""

import base64
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from torch.distributions import MultivariateNormal

from flowbook.core import Compose, Flow, StandardNormal
from flowbook.coupling import Coupling
from flowbook.pixels import bits_per_dim, mix_uniform
from flowbook.realnvp import Affine
from flowbook.records import read_run
from flowbook.toys import toy
from flowbook.vae import normal_kl, normal_log_prob
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


def test_elbo_is_the_bound_of_the_chapter():
    state = FIGURES['02_vae-elbo']['state']
    w, b, x = (torch.tensor(state['law'][k], dtype=torch.float64) for k in 'wbx')
    s = torch.tensor(state['law']['s'], dtype=torch.float64)
    noise = s**2 * torch.eye(2, dtype=torch.float64)
    marginal = MultivariateNormal(b, torch.outer(w, w) + noise)
    m = torch.linspace(-1, 2, 7, dtype=torch.float64)
    sd = torch.linspace(0.25, 1.5, 7, dtype=torch.float64)
    given = dict(law=state['law'], q=torch.stack([m, sd], -1).tolist())
    told = node(
        "import { evidence, posterior, terms } from './elbo.mjs'",
        """{ truth: [-2, 0, 3].map(z => evidence(given.law, z)), exact: posterior(given.law),
        terms: given.q.map(([m, sd]) => terms(given.law, m, sd)) }""",
        given,
    )
    truth = marginal.log_prob(x).item()
    assert told['truth'] == pytest.approx([truth] * 3, abs=1e-10)
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    zeros = torch.zeros(2, dtype=torch.float64)
    joint = normal_log_prob(x, b + w * z, s.log()) + normal_log_prob(z, *zeros)
    weight = joint.softmax(0)
    mean = (weight * z[:, 0]).sum()
    assert told['exact']['mean'] == pytest.approx(mean.item(), abs=1e-8)
    spread = (weight * (z[:, 0] - mean) ** 2).sum().sqrt()
    assert told['exact']['sd'] == pytest.approx(spread.item(), abs=1e-8)
    for made, mi, si in zip(told['terms'], m, sd):
        q = normal_log_prob(z, mi, si.log()).softmax(0)
        fit_term = (q * normal_log_prob(x, b + w * z, s.log())).sum()
        assert made['fit'] == pytest.approx(fit_term.item(), abs=1e-6)
        assert made['prior'] == pytest.approx(normal_kl(mi, si.log()).item(), abs=1e-10)
        assert made['elbo'] + made['gap'] == pytest.approx(truth, abs=1e-10)
        assert made['gap'] >= 0


def test_more_draws_inside_the_logarithm_tighten_as_in_torch():
    state = FIGURES['02_vae-elbo']['state']
    m, sd = -0.2, 0.6
    told = node(
        """import { evidence, inside, terms } from './elbo.mjs'
        import { numbers } from './lib.mjs'""",
        """{ truth: evidence(given.law), elbo: terms(given.law, given.m, given.sd).elbo,
        bounds: [1, 2, 4, 8, 16, 32, 64].map(K =>
          inside(given.law, given.m, given.sd, K, Array.from(numbers(given.noise)))) }""",
        dict(law=state['law'], noise=state['noise'], m=m, sd=sd),
    )
    assert told['bounds'] == sorted(told['bounds'])
    assert told['bounds'][0] == pytest.approx(told['elbo'], abs=0.02)
    assert told['bounds'][-1] <= told['truth'] + 0.01
    w, b, x = (torch.tensor(state['law'][k]) for k in 'wbx')
    log_s, zeros = torch.tensor(state['law']['s']).log(), torch.zeros(2)
    z = m + sd * torch.randn(8, 50_000, 1, generator=torch.Generator().manual_seed(1))
    log_w = normal_log_prob(x, b + w * z, log_s) + normal_log_prob(z, *zeros)
    log_w = log_w - normal_log_prob(z, torch.tensor(m), torch.tensor(sd).log())
    bound = log_w.logsumexp(0) - math.log(8)  # Eq. (eq-vae-bound)
    error = 4 * bound.std().item() / 128**0.5  # the figure has 128 groups of 8
    assert told['bounds'][3] == pytest.approx(bound.mean().item(), abs=error)
    assert error < 0.2


def test_boxes_and_noise_score_as_a_mixture_of_the_chapter():
    state = FIGURES['11b_pixels-dequantize']['state']
    law = torch.tensor(state['law'], dtype=torch.float64)
    cases = [(0.2, 0.0), (1.0, 0.0), (0.2, 0.7), (0.5, 0.5), (1.0, 1.0), (0.01, 0.3)]
    told = node(
        "import { entropyBits, score } from './dequantize.mjs'",
        """{ entropy: entropyBits(given.law), scores: given.cases.map(([width, noise]) =>
          score(given.law, width, noise, given.weight)) }""",
        dict(law=state['law'], weight=state['weight'], cases=cases),
    )
    assert told['entropy'] == pytest.approx(-(law * law.log2()).sum().item())
    for found, (width, noise) in zip(told['scores'], cases):
        u = noise * ((torch.arange(100_000) + 0.5) / 100_000 - 0.5)
        boxes = torch.where(u.abs() <= width / 2, law[:, None] / width, 0.0)
        bits = mix_uniform(-boxes.log2(), state['weight'], 1, len(law))
        wanted = (law * bits.mean(1)).sum().item()
        assert found == pytest.approx(wanted, abs=1e-3)


def test_nats_become_bits_as_in_the_chapter():
    state = FIGURES['11b_pixels-bits']['state']
    terms = {unit['name']: unit['term'] for unit in state['units']}
    told = node(
        "import { judgement, toBits, toNats } from './bits.mjs'",
        """{ bits: given.quoted.map(q => toBits(q.nats, given.terms[q.unit], given.dim)),
        back: toNats(toBits(1234.5, 272.8, given.dim), 272.8, given.dim),
        flat: toBits(0, given.terms['0…1'], given.dim),
        said: [-1, 1.5, 7, 9].map(bits => judgement(given.ladder, bits)) }""",
        state | dict(terms=terms),
    )
    for bits, q in zip(told['bits'], state['quoted']):
        wanted = bits_per_dim(q['nats'] + terms[q['unit']], 784)
        assert bits == pytest.approx(wanted, abs=1e-10)
    assert told['back'] == pytest.approx(1234.5, abs=1e-8)
    assert told['bits'][-1] == pytest.approx(-9.19, abs=5e-3)  # asserted in the chapter
    assert told['flat'] == pytest.approx(8)  # a uniform density of pixels 0…1
    assert [s.split()[0] for s in told['said']] == ['below', 'on', 'on', 'above']


def test_the_record_of_the_wall_keeps_area_where_it_must():
    state = FIGURES['06_coupling-wall']['state']
    told = node(
        "import { areaOf, unpack } from './wall.mjs'",
        """{ half: areaOf(given.half), areas: given.runs.map(run =>
          unpack(run, given.window, given.half.length).map(shot => areaOf(shot.half))),
        first: unpack(given.runs[0], given.window, given.half.length)[0] }""",
        state,
    )
    round_one = math.pi * 2 * math.log(2)  # half of a standard normal of the plane
    polygon = math.sin(math.tau / 96) / (math.tau / 96)  # in a circle, of 96 corners
    exact = round_one * polygon * 4 / 40**2  # Eq. (eq-exact): scales 1/40 and 4/40
    assert told['half'] == pytest.approx(exact, rel=1e-5)
    raw = torch.tensor(list(base64.b64decode(state['runs'][0]['places'])))
    pairs = (raw[::2] + 256 * raw[1::2]).double().reshape(-1, 2) / 65535
    x0, x1, y0, y1 = state['window']
    low, span = (
        torch.tensor(v, dtype=torch.float64) for v in ([x0, y0], [x1 - x0, y1 - y0])
    )
    places = low + pairs * span
    n = len(state['half'])
    assert told['first']['half'] == [pytest.approx(p.tolist()) for p in places[:n]]
    assert len(told['first']['dots']) == state['runs'][0]['dots']
    alone, scaled, affine = (torch.tensor(a) for a in told['areas'])
    assert (alone / alone[0] - 1).abs().max() < 0.02
    assert scaled[-1] < 0.3 * alone[-1] and affine[-1] < 0.3 * alone[-1]
    least, wall, entropy = (value for _, value in state['lines'])
    assert entropy == pytest.approx(toy('banana').entropy)
    costs = [torch.tensor(run['costs']) for run in state['runs']]
    assert costs[0].min() > least - 0.01 > wall
    assert (
        all(c.min() > entropy - 0.02 for c in costs)
        and costs[1][-1] < wall > costs[2][-1]
    )


def test_a_walk_meets_what_torch_meets():
    flow, _ = read_run('moons')
    a, b = ends = torch.tensor([[-0.9, 0.3], [1.9, 0.2]])
    t = torch.linspace(0, 1, 9)[:, None]
    with torch.no_grad():
        za, zb = flow.bijection.inverse(ends)[0]
        x = flow.bijection(za + t * (zb - za))[0]
        z = flow.bijection.inverse(a + t * (b - a))[0]
        log_p = flow.log_prob(x), flow.log_prob(a + t * (b - a))
    given = dict(
        layers=flow_state(flow), a=a.tolist(), b=b.tolist(), t=t[:, 0].tolist()
    )
    told = node(
        """import { straightInX, straightInZ } from './walk.mjs'
        import { chain } from './flow2d.mjs'
        """,
        """(flow => {
          const [za, zb] = [given.a, given.b].map(x => flow.inverse(x)[0])
          return { inZ: given.t.map(t => straightInZ(flow, za, zb, t)),
            inX: given.t.map(t => straightInX(flow, given.a, given.b, t)) }
        })(chain(given.layers))""",
        given,
    )
    for k in range(9):
        assert told['inZ'][k]['x'] == pytest.approx(x[k].tolist(), abs=1e-4)
        assert told['inZ'][k]['logP'] == pytest.approx(log_p[0][k].item(), abs=1e-3)
        assert told['inX'][k]['z'] == pytest.approx(z[k].tolist(), abs=1e-4)
        assert told['inX'][k]['logP'] == pytest.approx(log_p[1][k].item(), rel=1e-4)
    for k, end in [(0, a), (-1, b)]:
        assert told['inZ'][k]['x'] == pytest.approx(end.tolist(), abs=1e-5)
