"""Figures that move: their arithmetic against the book's own code, and in a browser."""

import base64
import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal

from flowbook.autoregressive import Autoregressive, by_loop
from flowbook.core import Compose, Flow, StandardNormal
from flowbook.coupling import Additive, Coupling, nice
from flowbook.gan import modes_hit
from flowbook.iaf import count_passes
from flowbook.jacobian import area_ratio, jacobian
from flowbook.made import MADE
from flowbook.monotone import RationalQuadratic, place_knots, slope_of
from flowbook.pixels import bits_per_dim, mix_uniform
from flowbook.realnvp import Affine
from flowbook.records import read_run
from flowbook.toys import toy
from flowbook.vae import normal_kl, normal_log_prob
from flowbook.variables import push_forward
from flowbook.widgets import (
    flow_state,
    image_flow_state,
    module,
    packed,
    page_normals,
    squeezed,
)
from support import ROOT, randomize

sys.path.insert(0, str(ROOT / 'tools'))
import look
import stills

WIDGETS = ROOT / 'flowbook' / 'assets' / 'widgets'
SHARED = {'flow2d', 'lib', 'pieces', 'rq'}
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


def test_the_gallery_has_every_figure():
    nb = json.loads((ROOT / 'nbs' / '96_widgets.ipynb').read_text(encoding='utf-8'))
    outputs = (o for c in nb['cells'] for o in c.get('outputs', []))
    texts = (''.join(o.get('data', {}).get('text/markdown', '')) for o in outputs)
    table = next(t for t in texts if 'class="gallery"' in t)
    rows = [line for line in table.split('\n') if line.startswith('| [')]
    assert len(rows) == len(FIGURES), 'execute nbs/96_widgets.ipynb again'
    for name in FIGURES:
        stem, own = name.rsplit('-', 1)
        (row,) = [r for r in rows if f'({stem}.ipynb#w-{name})' in r]
        assert f'stills/{name}.png' in row
        text = (WIDGETS / f'{own}.mjs').read_text(encoding='utf-8')
        found = re.search('^// One finds: (.+)', text, re.M)[1]
        assert found[1:] in row and len(found) <= 110
        title = re.search(r'\[([^]]+)\]\([^)]+\) \|$', row)[1]
        page = (ROOT / 'nbs' / f'{stem}.ipynb').read_text(encoding='utf-8')
        assert f'"# {title}\\n"' in page


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


def test_a_finger_need_not_hit_a_point(open_figure):
    page, wrong = open_figure('04_variables-stretch', width=360)
    shown = says(page)
    spot = page.locator('.fb-handle').last.bounding_box()
    x, y = spot['x'] + spot['width'] / 2 + 7, spot['y'] + spot['height'] / 2 - 5
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=3)
    page.mouse.up()
    assert says(page) != shown
    moved = says(page)
    page.mouse.move(x + 60, y)  # let go is let go
    assert says(page) == moved
    assert wrong == []


def test_an_address_sets_nothing_that_a_control_could_not(open_figure):
    page, wrong = open_figure('96_widgets-template')
    first = says(page)
    for end, slope in [('a=99;b=x', '3.00'), ('a=-5', '0.25'), ('c=1', '1.50')]:
        page.evaluate(f'location.hash = "w-template:{end}"')
        page.reload()
        page.wait_for_selector('.fb')
        assert page.locator('.fb output').first.inner_text() == slope
    assert says(page) == first
    assert wrong == []


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


FLAT_MAPS = {
    'bend': lambda a, b: (a + b**2 / 2, b + (1.5 * a).sin() / 2),
    'fold': lambda a, b: (a + b / 2, b**2),
    'identity': lambda a, b: (a, b),
}
AREAS = """given.map(g => {
  const f = warp(g)
  return { ratio: areaRatio(f, g.z, g.h, g.role), det: det(f.slopes(g.z)),
    flat: signedArea(parallelogram(f, g.z, g.h, g.role)), at: f.at(g.z) }
})"""


def test_areas_are_those_of_the_chapter_and_only_the_stretch_changes_them():
    def warped(map, r, t):
        def f(z):
            a, b = FLAT_MAPS[map](*z.unbind(-1))
            return torch.stack([a, b * (r * a).exp() + t * a**2], -1)

        return f

    gen = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(5, 2, generator=gen, dtype=torch.float64) - 1
    given = [
        dict(map=map, r=r, t=t, z=z, h=h, role=role)
        for map in FLAT_MAPS
        for r, t in [(0, 0), (0.5, 0), (0.5, -0.6)]
        for role, h in [('centre', 0.8), ('centre', 0.4), ('corner', 0.4)]
        for z in points.tolist()
    ]
    names = '{ areaRatio, det, parallelogram, signedArea, warp }'
    made = node(f"import {names} from './area.mjs'", AREAS, given)
    for g, told in zip(given, made):
        f = warped(g['map'], g['r'], g['t'])
        z = torch.tensor(g['z'], dtype=torch.float64)
        middle = z + g['h'] / 2 * (g['role'] == 'corner')
        det = torch.linalg.det(jacobian(f, z)).item()
        assert told['at'] == pytest.approx(f(z).tolist(), abs=1e-9)
        assert told['ratio'] == pytest.approx(
            area_ratio(f, middle, g['h']).item(), abs=1e-9
        )
        assert told['det'] == pytest.approx(det, abs=1e-9)
        assert told['flat'] == pytest.approx(g['h'] ** 2 * det, abs=1e-9)
        same = [m for o, m in zip(given, made) if {**o, 't': 0} == {**g, 't': 0}]
        for other in same:  # whatever the shear
            assert other['ratio'] == pytest.approx(told['ratio'], abs=1e-3)
            assert other['det'] == pytest.approx(det, abs=1e-9)


PUSHED = 'given.zs.map(z => given.maps.map(values => pushed(z, values)))'
INVERSES = {
    'straight': lambda y: y,
    'exp z': torch.log,
    'sinh z': torch.asinh,
    'Φ(z)': torch.special.ndtri,
    'z³': lambda y: y.sign() * y.abs() ** (1 / 3),
}


def g_of(x, g, a):
    return g(x / a)


def test_a_density_is_stretched_by_the_formula_of_the_chapter():
    maps = [dict(map=map, a=a) for map in INVERSES for a in (1.3, -0.7)]
    given = dict(zs=[-2.1, -0.4, 0.3, 1.7], maps=maps)
    told = node("import { pushed } from './stretch.mjs'", PUSHED, given)
    normal = torch.distributions.Normal(0.0, torch.ones((), dtype=torch.float64))
    for z, row in zip(given['zs'], told):
        for values, made in zip(maps, row):
            x = torch.tensor(made['x'], dtype=torch.float64)
            g = INVERSES[values['map']]
            assert g_of(x, g, values['a']).item() == pytest.approx(z, abs=1e-9)
            log_p = push_forward(normal.log_prob, partial(g_of, g=g, a=values['a']))
            assert made['p'] == pytest.approx(log_p(x).exp().item(), rel=1e-9)
    law = torch.distributions.LogNormal(0.0, torch.ones((), dtype=torch.float64))
    exponential = maps.index(dict(map='exp z', a=1.3))
    p = law.log_prob(torch.tensor(0.3).double().exp()).exp().item() / 1.3
    assert told[2][exponential]['p'] == pytest.approx(p, rel=1e-7)


DRAGGED = """(() => {
  const values = { ...given.start }
  let closest = 9
  for (const [i, ...place] of given.drags) {
    Object.assign(values, move(values, i, place))
    for (const row of rows(values))
      closest = Math.min(closest, ...row.slice(1).map((b, k) => b - row[k]))
  }
  return { closest, values }
})()"""
CURVE = """import { moved as move, pushed } from './stretch.mjs'
const line = Array.from({ length: 641 }, (_, i) => -3.2 + i / 100)
const rows = values => {
  const at = line.map(z => pushed(z, values))
  return [at.map(p => p.x), [0, Math.min(...at.map(p => p.slope))]]
}"""
KNOTS = """import { dragged, fenced } from './spline.mjs'
const move = (values, i, place) => dragged(values, i, place, given.bound)
const rows = values => Object.values(fenced(values, given.bound)).slice(0, 2)"""


def thrown(imports, start, n, size, **more):
    "What becomes of `n` points after a thousand drags to places of a square."
    gen = torch.Generator().manual_seed(0)
    places = size * (2 * torch.rand(1000, 2, generator=gen) - 1)
    drags = [[i % n, *place] for i, place in enumerate(places.tolist())]
    told = node(imports, DRAGGED, dict(start=start, drags=drags, **more))
    assert told['values'] != start
    return told


def thrown_curve():
    state = FIGURES['04_variables-stretch']['state']
    points = dict(pz=state['pz'], px=state['px'])
    return thrown(CURVE, dict(points, map='drag the points', a=1), 4, 4)


def thrown_knots():
    state = FIGURES['11a_monotone-spline']['state']
    start, bound = state['start'], state['bound']
    return thrown(KNOTS, start, len(start['v']), 6, bound=bound)


@pytest.mark.parametrize('throw', [thrown_curve, thrown_knots])
def test_no_drag_breaks_an_increasing_curve(throw):
    assert throw()['closest'] > 0


def test_a_dragged_curve_keeps_the_mass_of_each_strip():
    state = FIGURES['04_variables-stretch']['state']
    given = dict(state, values=thrown_curve()['values'])
    areas = """strips(given.edges, given.mass, given.values)
      .map(row => row.map(([low, high, p]) => (high - low) * p))"""
    told = node("import { strips } from './stretch.mjs'", areas, given)
    shares = torch.tensor(state['edges']).double().sort().values
    mass = torch.special.ndtr(shares).diff()
    for row in told:
        assert row == pytest.approx(mass.tolist(), abs=1e-6)
        assert sum(row) == pytest.approx(0.998, abs=1e-6)


SPLINES = """given.map(({ knots, v, u }) => ({
  along: v.map(x => along(x, knots)), back: u.map(y => back(y, knots)),
  home: v.map(x => back(along(x, knots)[0], knots)[0]) }))"""


def test_a_spline_is_that_of_the_book_in_both_directions():
    rq = RationalQuadratic(bins=8, bound=4.0)
    gen = torch.Generator().manual_seed(0)
    raw = 1.5 * torch.randn(20, rq.n_params, generator=gen)
    line = torch.linspace(-5, 5, 101)
    given = []
    for row in raw:
        x, y = place_knots(row[:16].view(2, 8), 4.0, rq.least).tolist()
        knots = dict(x=x, y=y, d=[1, *rq.slopes(row[16:]).tolist(), 1])
        given.append(dict(knots=knots, v=line.tolist(), u=line.tolist()))
    told = node("import { along, back } from './rq.mjs'", SPLINES, given)
    for row, made in zip(raw, told):
        for name, direction in [('along', rq.inverse), ('back', rq.forward)]:
            value, slope = torch.tensor(made[name]).double().unbind(-1)
            found, log_d = direction(line, row.expand(101, -1))
            torch.testing.assert_close(value.float(), found, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(slope.log().float(), log_d, atol=1e-3, rtol=1e-4)
        assert made['home'] == pytest.approx(line.tolist(), abs=1e-5)


EDITED = """(() => {
  const { start, fitted, places, law, bound } = given
  const gaps = [start, fitted].map(s => divergence(places, law, fenced(s, bound)))
  const [i, density] = [2, s => v => logDensity(v, fenced(s, bound))]
  const away = dragged(start, i, [start.v[i] + 0.2, start.u[i] - 0.1], bound)
  const [old, changed] = [density(start), density({ ...start, ...away })]
  const touched = places.filter(v => old(v) !== changed(v))
  return { gaps, touched }
})()"""


def test_a_knot_acts_beside_itself_and_the_divergence_is_the_integral():
    state = FIGURES['11a_monotone-spline']['state']
    names = '{ divergence, dragged, fenced, logDensity }'
    told = node(f"import {names} from './spline.mjs'", EDITED, state)
    assert len(told['touched']) > 10  # a knot belongs to the pieces beside it
    assert state['start']['v'][1] <= min(told['touched'])
    assert max(told['touched']) <= state['start']['v'][3]
    line = torch.tensor(state['places']).double()
    law = torch.tensor(state['law']).double()
    for name, gap in zip(['start', 'fitted'], told['gaps']):
        rows = [torch.tensor(state[name][key]).double() for key in 'vud']
        bound, one = torch.full((1,), state['bound']).double(), torch.ones(1).double()
        v, u = (torch.cat([-bound, row, bound]) for row in rows[:2])
        d = torch.cat([one, rows[2], one])
        k = (line[:, None] >= v[1:-1]).sum(-1)
        w, h = v.diff()[k], u.diff()[k]
        xi = (line - v[k]) / w
        slope, below = slope_of(xi, h / w, d[k], d[k + 1])
        value = u[k] + h * xi * torch.lerp(d[k], h / w, xi) / below
        inside = line.abs() < bound
        value = torch.where(inside, value, line)
        log_slope = torch.where(inside, slope, 1.0).log()
        log_p = log_slope + torch.distributions.Normal(0.0, 1.0).log_prob(value)
        step = (line[1] - line[0]).item()
        expected = (torch.xlogy(law, law) - law * log_p).sum().item() * step
        assert gap == pytest.approx(expected, abs=1e-4)
    assert told['gaps'][1] < 0.02 < told['gaps'][0]


COUPLED = """given.map(g => {
  const [x, log_s] = forward(g, g.z), [home, back] = inverse(g, x)
  return { x, log_s, home, back }
})"""


def test_sliders_drive_the_affine_map_of_the_book_in_both_directions():
    gen = torch.Generator().manual_seed(0)
    coefficients = 2 * torch.rand(1000, 5, generator=gen).double() - 1
    z = torch.randn(1000, 2, generator=gen).double()
    layers = {
        'affine, bound 3': Affine(3.0),
        'affine, no bound': Affine(None),
        'additive': Additive(),
    }
    given = [
        dict(zip(['a', 'b', 'c', 'd', 'shift'], row), layer=layer, z=at)
        for row, at, layer in zip(coefficients.tolist(), z.tolist(), 334 * list(layers))
    ]
    told = node("import { forward, inverse } from './affine.mjs'", COUPLED, given)
    for g, (a, b, c, d, shift), (u, v), made in zip(given, coefficients, z, told):
        raw = a * u + b * (1.6 * u).sin()
        t = shift + c * u + d * u**2
        additive = g['layer'] == 'additive'
        params = t.view(1) if additive else torch.stack([raw, t])
        x, log_s = layers[g['layer']].forward(v, params)
        assert made['x'] == pytest.approx([u.item(), x.item()], abs=1e-6)
        assert made['log_s'] == pytest.approx(log_s.item(), abs=1e-6)
        assert made['home'] == pytest.approx(g['z'], abs=1e-9)
        assert made['back'] == -made['log_s']


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


MASKS = """given.map(({ order, width, draw, source }) => {
  const random = uniform(draw)
  const hidden = [0, 1].map(() => degrees(order.length, width, draw, random))
  const between = masks(order.length, hidden)
  const input = order.indexOf(source)
  return { hidden, between, count: paths(between), reached: known(between, input).at(-1) }
})"""


def test_masks_are_those_of_the_library():
    gen = torch.Generator().manual_seed(0)
    orders = [torch.randperm(6, generator=gen).tolist() for _ in range(24)]
    given = [
        dict(order=order, width=1 + k % 12, draw=0, source=k % 6)
        for k, order in enumerate(orders)
    ]
    imports = (
        "import { uniform } from './pieces.mjs'\n"
        + "import { degrees, masks, paths, known } from './masks.mjs'"
    )
    for case, told in zip(given, node(imports, MASKS, given)):
        torch.manual_seed(0)
        widths = case['width'], case['width']
        net = MADE(6, 1, hidden=widths, order=case['order'], activation='tanh')
        torch.nn.init.normal_(net.last.weight)
        assert told['hidden'] == net.ready
        assert told['between'] == [layer.mask.int().tolist() for layer in net.stack()]
        J = torch.autograd.functional.jacobian(net, torch.zeros(6))[:, 0]
        reached = J[case['order']][:, case['source']] != 0
        assert told['reached'] == reached.int().tolist()


def test_masks_drawn_at_random_are_autoregressive():
    gen = torch.Generator().manual_seed(1)
    widths = torch.randint(1, 13, (500,), generator=gen).tolist()
    order = [3, 0, 4, 1, 5, 2]
    given = [
        dict(order=order, width=w, draw=k + 1, source=k % 6)
        for k, w in enumerate(widths)
    ]
    imports = (
        "import { uniform } from './pieces.mjs'\n"
        + "import { degrees, masks, paths, known } from './masks.mjs'"
    )
    seen = set()
    for case, told in zip(given, node(imports, MASKS, given)):
        between = [torch.tensor(m) for m in told['between']]
        count = between[2] @ between[1] @ between[0]
        assert told['count'] == count.tolist()
        assert count.triu().eq(0).all()
        degree = torch.tensor(told['hidden'])
        assert degree.shape == (2, case['width']) and degree.min() > 0
        assert torch.equal(between[1], (degree[1][:, None] >= degree[0]).long())
        reached = count[:, order.index(case['source'])] > 0
        assert told['reached'] == reached.int().tolist()
        seen |= set(degree.flatten().tolist())
    assert seen == {1, 2, 3, 4, 5}


def test_an_order_is_dragged():
    moves = "given.map(([i, place]) => moved([2, 0, 1, 3], i, place))"
    given = [[0, 0], [0, 3], [2, 1], [3, 3]]
    told = node("import { moved } from './masks.mjs'", moves, given)
    for (i, place), order in zip(given, told):
        assert order[place] == i
        assert [k for k in order if k != i] == [k for k in [2, 0, 1, 3] if k != i]


TASKS = ['sample', 'score a given point', 'sample and score']
AFTER = 'given.map(([k, t, d, n]) => after(k, t, d, n))'


def one_call_or_the_loop(kind, task, layer, u):
    "The textbook's way: `u` is the row that is given, data if it is scored."
    if (kind == 'MAF') == (task == 'score a given point'):
        return layer.inverse(u)
    return by_loop(layer, u)


def test_calls_are_those_that_hooks_count():
    jobs = [(k, t, d) for k in ['MAF', 'IAF'] for t in TASKS for d in range(2, 13)]
    given = [(*job, n) for job in jobs for n in range(job[2] + 2)]
    told = node("import { after } from './passes.mjs'", AFTER, given)
    states = {tuple(case): state for case, state in zip(given, told)}
    for kind, task, dim in jobs:
        torch.manual_seed(0)
        layer = Autoregressive(dim, Affine(), hidden=(16,))
        torch.nn.init.normal_(layer.net.last.weight)
        u = torch.randn(4, dim)
        job = partial(one_call_or_the_loop, kind, task, layer, u)
        (_, log_det), calls = count_passes(job, layer)
        assert log_det.shape == (4,)  # the density comes with the last call
        row = 'latent' if task == 'score a given point' else 'data'
        for n in range(dim + 2):
            state = states[kind, task, dim, n]
            assert (state['total'], state['done']) == (calls, min(n, calls))
            assert (state[row] == dim) == (n >= calls)
            other = state['data' if row == 'latent' else 'latent']
            assert other == dim


def test_cells_are_known_when_the_loop_has_found_them():
    torch.manual_seed(0)
    layer = Autoregressive(7, Affine(), hidden=(16,)).double()
    torch.nn.init.normal_(layer.net.last.weight)
    z = torch.randn(5, 7, dtype=torch.float64)
    x, _ = by_loop(layer, z)
    given = [('MAF', 'sample', 7, n) for n in range(8)]
    told = node("import { after } from './passes.mjs'", AFTER, given)
    row = torch.full_like(z, 9.0)
    for state in told:
        right = (row - x).abs().amax(0) < 1e-12
        assert state['found'] == right.sum() == right[: state['found']].sum()
        row = layer.elementwise.forward(z, layer.net(row))[0]  # one call of the network


FILLED = """given.map(([pattern, dim, cut, layers, seed]) => {
  const changes = parts(pattern, dim, cut, layers, seed)
  return { changes, since: filled(changes) }
})"""


def couplings(changes, gen):
    "Additive couplings that change the marked coordinates and read the others."
    dim = len(changes[0])
    weights = [torch.randn(dim, dim, generator=gen).double() for _ in changes]

    def chain(z):
        for changed, weight in zip(torch.tensor(changes).double(), weights):
            z = z + changed * ((1 - changed) * z @ weight).tanh()
        return z

    return chain


def test_a_jacobian_fills_as_autograd_says():
    gen = torch.Generator().manual_seed(0)
    kinds = ['halves in turn', 'checkerboard in turn', 'always the same half']
    kinds += ['a random part']
    given = []
    for k in range(200):
        dim = int(torch.randint(2, 9, (), generator=gen))
        cut = int(torch.randint(1, dim, (), generator=gen))
        given.append([kinds[k % 4], dim, cut, 1 + k % 5, k])
    told = node("import { parts, filled } from './fill.mjs'", FILLED, given)
    for (kind, dim, cut, layers, _), case in zip(given, told):
        changes = case['changes']
        assert len(changes) == layers
        size = dim // 2 if kind == 'checkerboard in turn' else dim - cut
        assert sum(changes[0]) == size
        chain = couplings(changes, gen)
        z = 0.3 * torch.randn(dim, generator=gen).double()
        J = torch.autograd.functional.jacobian(chain, z) != 0
        there = [[n is not None for n in row] for row in case['since']]
        assert there == J.tolist()
        for k in range(1, layers):  # an entry is filled after the layer that it names
            J = torch.autograd.functional.jacobian(couplings(changes[:k], gen), z) != 0
            by = [[n is not None and n <= k for n in row] for row in case['since']]
            assert by == J.tolist()


def test_halves_in_turn_are_the_couplings_of_the_library():
    torch.manual_seed(0)
    given = [['halves in turn', dim, dim // 2, 4, 1] for dim in [2, 5, 8]]
    told = node("import { parts, filled } from './fill.mjs'", FILLED, given)
    for (_, dim, *_), case in zip(given, told):
        layers = [Coupling(dim, Additive(), flip=k % 2 == 1) for k in range(4)]
        z = torch.randn(dim).double()
        for k, layer in enumerate(layers):
            torch.nn.init.normal_(layer.double().net.layers[-1].weight)
            moved = (layer(z)[0] != z).tolist()
            assert moved == case['changes'][k]
            chain = Compose(*layers[: k + 1])
            J = torch.autograd.functional.jacobian(lambda z, f=chain: f(z)[0], z) != 0
            by = [[n is not None and n <= k + 1 for n in row] for row in case['since']]
            assert by == J.tolist()


def test_two_layers_are_enough_if_one_number_changes_first():
    given = [
        ['halves in turn', d, cut, 6, 1] for d in range(2, 9) for cut in range(1, d)
    ]
    told = node("import { parts, filled } from './fill.mjs'", FILLED, given)
    for (_, dim, cut, *_), case in zip(given, told):
        assert max(max(row) for row in case['since']) == (2 if cut == dim - 1 else 3)


def test_random_halves_usually_take_more_than_six_layers():
    given = [['a random part', 8, 4, 6, seed] for seed in range(200)]
    told = node("import { parts, filled } from './fill.mjs'", FILLED, given)
    open_ = sum(any(None in row for row in case['since']) for case in told)
    assert 100 < open_ < 200


TEMPERED = """given.map(({ T, ...told }) => {
  const found = latents(told)
  const [p, q] = [drawn(found, T), power(found, T)].map(law => [...law])
  return { p, q, far: distance(p, q) }
})"""


def test_a_temperature_is_a_power_at_constant_volume_only():
    torch.manual_seed(0)
    additive = nice(2, layers=6, hidden=(32, 32), base='normal', scale=False)
    flows = dict(affine=read_run('moons')[0], additive=randomize(additive))
    axes = torch.linspace(-2, 3, 50), torch.linspace(2, -1.5, 35)
    x = torch.stack(torch.meshgrid(*axes, indexing='xy'), -1)
    given, wanted = [], []
    for name, flow in flows.items():
        with torch.no_grad():
            z, log_det = flow.bijection.inverse(x)
            log_p = flow.log_prob(x).double().flatten()
        told = dict(half=packed((z**2).sum(-1) / 2), log_det=packed(log_det))
        for T in [0.3, 0.7, 1.0, 1.2]:
            at_T = flow.base.log_prob(z / T) + log_det
            p = torch.softmax(at_T.double().flatten(), 0)
            wanted.append((name, T, p, torch.softmax(log_p / T**2, 0)))
            given.append(told | dict(T=T))
    imports = "import { latents, drawn, power, distance } from './temperature.mjs'"
    for (name, T, p, q), case in zip(wanted, node(imports, TEMPERED, given)):
        far = 0.5 * (p - q).abs().sum().item()
        assert case['p'] == pytest.approx(p.tolist(), abs=1e-4)
        assert case['q'] == pytest.approx(q.tolist(), abs=1e-4)
        assert case['far'] == pytest.approx(far, abs=1e-4)
        assert (far > 0.05) == (name == 'affine' and T != 1)
        assert name == 'affine' or case['far'] < 1e-4


def test_draws_at_a_temperature_are_those_of_sample():
    flow, _ = read_run('moons')
    seeds = [torch.Generator().manual_seed(5) for _ in range(2)]
    z = flow.base.sample((20,), seeds[0])
    x = flow.sample((20,), temperature=0.6, generator=seeds[1])
    given = dict(layers=flow_state(flow), points=(0.6 * z).tolist())
    value = 'given.points.map(z => chain(given.layers).trace(z).states.at(-1))'
    told = node("import { chain } from './flow2d.mjs'", value, given)
    assert torch.tensor(told) == pytest.approx(x, abs=1e-4)


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


def test_learned_noise_is_the_bound_of_the_chapter_at_its_best():
    state = FIGURES['11b_pixels-dequantize']['state']
    law = torch.tensor(state['law'], dtype=torch.float64)
    widths, shares = [0.02, 0.3, 1.0], [0.0005, 0.03, 0.5, 0.8, 0.9995]
    told = node(
        "import { learnedScore, ownPlace } from './dequantize.mjs'",
        """{ bits: learnedScore(given.law, given.weight), places: given.widths.map(width =>
          given.law.map(p => given.shares.map(share =>
            ownPlace(share, p, width, given.law.length, given.weight)))) }""",
        state | dict(widths=widths, shares=shares),
    )
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 - 0.5
    for width, places in zip(widths, told['places']):
        boxes = torch.where(u.abs() <= width / 2, law[:, None] / width, 0.0)
        p = mix_uniform(-boxes.log2(), state['weight'], 1, len(law)).neg().exp2()
        own = p / p.mean(1, keepdim=True)
        bound = (own * (p.log2() - own.log2())).mean(1)  # Eq. (eq-variational)
        assert told['bits'] == pytest.approx(-(law * bound).sum().item(), abs=1e-3)
        for noise in (torch.ones_like(own), own.flip(0)):
            other = (noise * (p.log2() - noise.log2())).mean(1)
            assert (other < bound + 1e-9).all()
        for row, at in zip(own, places):
            below = [row[u < place].sum().item() / len(u) for place in at]
            assert below == pytest.approx(shares, abs=1e-3)


def test_nats_become_bits_as_in_the_chapter():
    state = FIGURES['11bb_ladder-bits']['state']
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


def test_the_least_cost_of_data_of_any_size_is_that_of_the_rearrangement():
    state = FIGURES['06_coupling-wall']['state']
    sizes = [0.5, 1.0, state['spread'] ** -0.5, 3.0]
    level = dict(state['lines'])
    told = node(
        "import { areaOf, bestAt, entropyAt, leastAt } from './wall.mjs'",
        """given.at.map(size => {
          const best = bestAt(size, given.half, given.law.spread)
          return { best, area: areaOf(best), least: leastAt(size, given.law),
            entropy: entropyAt(size, given.law) }
        })""",
        dict(at=sizes, half=state['half'], law=dict(level, spread=state['spread'])),
    )
    half = torch.tensor(state['half'])
    banana = toy('banana')
    across, up = torch.linspace(-0.2, 3.5, 1851), torch.linspace(-0.7, 0.7, 701)
    cells = torch.cartesian_prod(across, up).double()
    p = banana.log_prob(cells).exp().sort(descending=True).values * 4e-6
    unit = (33 * 16) ** 0.5 / 1600  # of area: the deviations of both coordinates
    for size, made in zip(sizes, told):
        ranks = torch.arange(1, len(p) + 1) * 4e-6 * size**2 / unit
        wanted = level['wall'] + (p * ranks / math.tau).sum().item()
        assert made['least'] == pytest.approx(wanted, abs=1e-3)
        assert made['entropy'] == pytest.approx(banana.entropy + 2 * math.log(size))
        assert made['least'] >= made['entropy'] - 1e-6
        assert made['area'] == pytest.approx(told[0]['area'], rel=1e-2)
    found = torch.tensor(told[2]['best'])
    torch.testing.assert_close(found, sizes[2] * half, atol=1e-5, rtol=1e-4)
    assert told[2]['least'] == pytest.approx(told[2]['entropy'], abs=1e-6)
    law = dict(zip(sizes, told))
    for s in state['sizes']:
        gap = s['cost'] - law[s['size']]['least']
        assert -0.02 < gap < 0.06


def test_a_walk_meets_what_torch_meets():
    flow, _ = read_run('moons')
    a, b = ends = torch.tensor([[-0.9, 0.3], [1.9, 0.2]])
    t = torch.linspace(0, 1, 9)[:, None]
    with torch.no_grad():
        za, zb = flow.bijection.inverse(ends)[0]
        x = flow.bijection(za + t * (zb - za))[0]
        z = flow.bijection.inverse(a + t * (b - a))[0]
        log_p = flow.log_prob(x), flow.log_prob(a + t * (b - a))
        norm = torch.lerp(za.norm(), zb.norm(), t)
        angle = torch.acos(za @ zb / za.norm() / zb.norm())
        parts = torch.sin((1 - t) * angle) * za / za.norm()
        parts = parts + torch.sin(t * angle) * zb / zb.norm()
        turned = norm * parts / angle.sin()
        turned_x = flow.bijection(turned)[0]
        turned_log_p = flow.log_prob(turned_x)
    given = dict(
        layers=flow_state(flow), a=a.tolist(), b=b.tolist(), t=t[:, 0].tolist()
    )
    told = node(
        """import { roundInZ, straightInX, straightInZ } from './walk.mjs'
        import { chain } from './flow2d.mjs'
        """,
        """(flow => {
          const [za, zb] = [given.a, given.b].map(x => flow.inverse(x)[0])
          return { inZ: given.t.map(t => straightInZ(flow, za, zb, t)),
            round: given.t.map(t => roundInZ(flow, za, zb, t)),
            inX: given.t.map(t => straightInX(flow, given.a, given.b, t)) }
        })(chain(given.layers))""",
        given,
    )
    for k in range(9):
        assert told['inZ'][k]['x'] == pytest.approx(x[k].tolist(), abs=1e-4)
        assert told['inZ'][k]['logP'] == pytest.approx(log_p[0][k].item(), abs=1e-3)
        assert told['inX'][k]['z'] == pytest.approx(z[k].tolist(), abs=1e-4)
        assert told['inX'][k]['logP'] == pytest.approx(log_p[1][k].item(), rel=1e-4)
        assert told['round'][k]['z'] == pytest.approx(turned[k].tolist(), abs=1e-4)
        assert told['round'][k]['x'] == pytest.approx(turned_x[k].tolist(), abs=1e-4)
        here = turned_log_p[k].item()
        assert told['round'][k]['logP'] == pytest.approx(here, abs=1e-3)
        assert math.hypot(*told['round'][k]['z']) == pytest.approx(
            norm[k].item(), abs=1e-5
        )
    for k, end in [(0, a), (-1, b)]:
        assert told['round'][k]['x'] == pytest.approx(end.tolist(), abs=1e-5)
        assert told['inZ'][k]['x'] == pytest.approx(end.tolist(), abs=1e-5)


def test_modes_are_counted_as_in_the_chapter_at_every_frame():
    state = FIGURES['01_gan-modes']['state']
    told = node(
        "import { modesHit, tracks } from './modes.mjs'",
        """given.runs.map(run => tracks(run.places, given.dots, given.half).map(points => {
          const { hit, near } = modesHit(points, given.centres, given.radius, given.share)
          return { first: points[0], hit, near }
        }))""",
        state,
    )
    centres = torch.tensor(state['centres'], dtype=torch.float64)
    reached = {}
    for run, film in zip(state['runs'], told):
        raw = torch.tensor(list(base64.b64decode(run['places']))).double()
        frames = state['half'] * (2 * raw / 255 - 1).view(-1, state['dots'], 2)
        assert len(frames) == len(film) == len(run['costs'])
        for points, made in zip(frames, film):
            assert made['first'] == pytest.approx(points[0].tolist())
            wanted = modes_hit(points, centres, state['radius'], state['share'])
            assert (made['hit'], made['near']) == (wanted[0], pytest.approx(wanted[1]))
        reached[run['name']] = [made['hit'] for made in film]
        cells = len(base64.b64decode(run['ground'])) / len(film)
        assert cells == 28**2
    assert max(reached['hasty GAN'][20:]) <= 4 < 7 <= reached['GAN'][-1]
    assert reached['flow'][0] == reached['flow'][-1] == 8
