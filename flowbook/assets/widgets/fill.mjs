// Who reads whom in a chain of couplings, and how its Jacobian fills, layer by layer.
// One finds: halves in turn fill the Jacobian in three layers; two are enough if a single number changes first.

import { COLORS, board, figure, handle, make, plane, play } from './lib.mjs'
import { ends, sized, sliders, uniform } from './pieces.mjs'

const MOST = 6 // layers
const PATTERNS = ['halves in turn', 'checkerboard in turn', 'always the same half', 'a random part']

// Which coordinates each layer changes; it reads the others. `cut` coordinates stay in the
// first layer.
export function parts(pattern, dim, cut, layers, seed = 1) {
  const random = uniform(seed)
  const all = [...Array(dim).keys()]
  return [...Array(layers).keys()].map(k => {
    const flip = k % 2 === 1
    if (pattern === PATTERNS[0]) return all.map(i => (i >= cut) !== flip)
    if (pattern === PATTERNS[1]) return all.map(i => (i % 2 === 1) !== flip)
    if (pattern === PATTERNS[2]) return all.map(i => i >= cut)
    const rank = all.map(() => random())
    return all.map(i => rank.filter(r => r < rank[i]).length >= cut)
  })
}

// For each output (row) and input (column) the layer after which it depends on it: 0 on
// the diagonal, null for never.
export function filled(changes) {
  const all = changes[0].map((_, i) => i)
  const since = all.map(i => all.map(j => (i === j ? 0 : null)))
  changes.forEach((changed, k) => {
    const before = since.map(row => row.map(n => n !== null))
    for (const i of all.filter(i => changed[i])) {
      for (const j of all) {
        const seen = all.some(r => !changed[r] && before[r][j])
        if (seen && since[i][j] === null) since[i][j] = k + 1
      }
    }
  })
  return since
}

// What the read-out says after `k` layers.
export function reading(since, k) {
  const flat = since.flat(), dim = since.length
  const there = flat.filter(n => n !== null && n <= k)
  const share = `${Math.round(100 * there.length / flat.length)}\u00a0%`
  const start = `After ${k} ${k === 1 ? 'layer' : 'layers'} ${there.length} of ${flat.length} entries are filled, ${share}. `
  const newest = Math.max(...there)
  if (there.length === flat.length) return `${start}Every output depends on every input, since layer ${newest}.`
  const row = since.findIndex(r => r.some(n => n === null || n > k))
  const missing = [...Array(dim).keys()].filter(j => since[row][j] === null || since[row][j] > k)
  const stuck = k > newest && k > 0 ? ` Nothing new since layer ${newest}.` : ''
  return `${start}Output x${row + 1}, for one, does not depend on ${missing.map(j => `z${j + 1}`).join(', ')}.${stuck}`
}

const word = (text, x, y, style = '', anchor = 'middle') =>
  make('text', { x, y: y + 4, 'text-anchor': anchor, style: `${style}; pointer-events: none` }, text)

// Lanes from z to x; each layer adds to the lanes that it changes what it reads on the others.
function drawLanes(p, changes, since, input, k) {
  const all = changes[0].map((_, i) => i), dim = all.length
  const at = (l, i) => `${p.px(l).toFixed(1)} ${p.py(dim - i).toFixed(1)}`
  const hot = (l, i) => since[i][input] !== null && since[i][input] <= l
  const lines = { path: ['', ''], far: ['', ''] }
  changes.forEach((changed, l) => {
    for (const i of all) {
      for (const j of all) {
        if (i !== j && (!changed[i] || changed[j])) continue
        lines[l < k ? 'path' : 'far'][+hot(l, j)] += `M${at(l, j)}L${at(l + 1, i)}`
      }
    }
  })
  const line = (d, hot, opacity) => make('path', { d, fill: 'none', stroke: hot ? COLORS.data : COLORS.floor,
    'stroke-width': hot && opacity > 0.3 ? 1.8 : 1, 'stroke-opacity': opacity })
  const dots = changes.flatMap((changed, l) => all.map(i => {
    const here = l < k, r = changed[i] ? 7 : 3
    const fill = here && hot(l + 1, i) ? COLORS.data : COLORS.floor
    const look = { cx: p.px(l + 1), cy: p.py(dim - i), r, fill, 'fill-opacity': here ? 1 : 0.35 }
    const plus = changed[i] ? word('+', look.cx, look.cy, `fill: white; font-weight: bold${here ? '' : '; opacity: .6'}`) : ''
    return [make('circle', look), plus]
  })).flat()
  const heads = changes.map((_, l) => word(`${l + 1}`, p.px(l + 1), 10, l < k ? 'font-weight: bold' : 'opacity: .6'))
  p.under.replaceChildren(line(lines.far[0] + lines.far[1], false, 0.18), line(lines.path[0], false, 0.55),
    line(lines.path[1], true, 0.9), ...dots, word('layer', p.px(0), 10), ...heads)
}

// The Jacobian after `k` layers: each entry says which layer filled it.
function drawJacobian(p, since, input, k) {
  const dim = since.length, w = p.px(1) - p.px(0), h = p.py(0) - p.py(1)
  const here = n => n !== null && n <= k
  const boxes = since.flatMap((row, i) => row.flatMap((n, j) => {
    const fill = !here(n) ? COLORS.floor : n === k && k > 0 ? COLORS.model : COLORS.latent
    const place = { x: p.px(j) + 0.5, y: p.py(dim - i) + 0.5, width: w - 1, height: h - 1, fill, 'fill-opacity': here(n) ? 1 : 0.15 }
    return [make('rect', place), here(n) ? word(n, p.px(j + 0.5), p.py(dim - i - 0.5), 'fill: white') : '']
  }))
  const names = since.flatMap((_, i) => [word(`x${i + 1}`, p.px(0) - 5, p.py(dim - i - 0.5), '', 'end'),
    word(`z${i + 1}`, p.px(i + 0.5), p.py(dim) - 10, i === input ? 'font-weight: bold' : '')])
  const frame = { x: p.px(input), y: p.py(dim), width: w, height: dim * h, fill: 'none', stroke: COLORS.data, 'stroke-width': 3 }
  p.under.replaceChildren(...boxes, make('rect', frame), ...names)
}

export default {
  render({ model, el }) {
    const { dim, cut } = model.get('state')
    let now
    figure(model, el, {
      name: 'fill',
      start: { dim, cut, pattern: PATTERNS[0], seed: 1, input: dim - 1, k: 2 },
      controls: {
        k: { label: 'layers so far', min: 0, max: MOST, step: 1, show: k => `${Math.floor(k)}` },
        dim: { label: 'coordinates D', min: 2, max: 8, step: 1, show: n => `${n}` },
        cut: { label: 'first part d', min: 1, max: 7, step: 1, show: n => `${Math.min(n, (now?.dim ?? dim) - 1)}` },
        pattern: { label: 'each layer changes', options: PATTERNS },
        go: { label: 'Play', press: set => play(set, 'k', 0, MOST, 5) },
        again: { label: 'New random parts', press: set => set({ pattern: PATTERNS[3], seed: now.seed + 1 }) },
      },
      setup(stage, set) {
        let lanes, jacobian, point, dot, built
        const cutSlider = sliders(stage)[2]
        const build = n => {
          lanes = plane({ x: [0, MOST + 0.2], y: [0.5, n + 0.5], width: 375, height: 262, title: ' ', ticks: 0 })
          jacobian = plane({ x: [0, n], y: [0, n + 0.8 * n / 8], width: 235, height: 262, title: 'the layer that filled the entry', ticks: 0 })
          stage.replaceChildren()
          sized(board(stage, [lanes, jacobian], 'Lanes of the coordinates through the layers, and the Jacobian so far'), [375, 235])
          point = handle(lanes, { label: 'the input to follow', free: 'y', step: 1, r: 8,
            move: ([, y]) => set({ input: n - Math.round(y) }) })
          dot = lanes.top.lastElementChild
          lanes.top.append(...[...Array(n).keys()].map(i => word(`z${i + 1}`, lanes.px(0) - 13, lanes.py(n - i), '', 'end')))
        }
        return values => {
          now = values
          if (built !== values.dim) build(built = values.dim)
          const { dim: n, pattern, seed } = values
          const part = Math.min(values.cut, n - 1), input = Math.min(values.input, n - 1), k = Math.floor(values.k)
          ends(cutSlider, n - 1, part)
          const changes = parts(pattern, n, part, MOST, seed), since = filled(changes)
          drawLanes(lanes, changes, since, input, k)
          drawJacobian(jacobian, since, input, k)
          point([0, n - input])
          dot.setAttribute('aria-valuetext', `z${input + 1}`)
          return reading(since, k)
        }
      },
    })
  },
}
