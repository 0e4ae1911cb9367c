// Stretch an axis, and watch twenty strips of equal probability become wider or higher.
// One finds: each strip keeps its probability: the density is high where the curve is flat, and nothing bounds it.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, range } from './lib.mjs'
import { along, secants } from './rq.mjs'

export const density = z => Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI)

// The share of a standard normal law below `z`, by its Taylor series.
export function below(z) {
  let sum = z, term = z
  for (let k = 3; Math.abs(term) > 1e-17; k += 2) sum += term *= z * z / k
  return 0.5 + sum * density(z)
}

// Knots of the curve that is dragged: between two pieces the harmonic mean of their slopes.
export function curve(x, y) {
  const s = secants({ x, y })
  const inner = s.slice(1).map((v, k) => 2 / (1 / v + 1 / s[k]))
  return { x, y, d: [s[0], ...inner, s.at(-1)] }
}

// Increasing maps: value and slope.
const MAPS = {
  'straight': z => [z, 1],
  'exp z': z => [Math.exp(z), Math.exp(z)],
  'sinh z': z => [Math.sinh(z), Math.cosh(z)],
  'Φ(z)': z => [below(z), density(z)],
  'z³': z => [z ** 3, 3 * z * z],
  'drag the points': (z, { pz, px }) => along(z, curve(pz, px)),
}

// Where `z` goes, how steep the map is there, and the density on arrival.
export function pushed(z, values) {
  const [value, slope] = MAPS[values.map](z, values).map(v => values.a * v)
  return { x: value, slope, p: density(z) / Math.abs(slope) }
}

// Point `i` moves, and stays between its neighbours.
export function moved({ pz, px }, i, [z, x]) {
  const between = (row, v, gap, reach) => clamp(v, i ? row[i - 1] + gap : -reach, i + 1 < row.length ? row[i + 1] - gap : reach)
  const put = (row, v) => row.map((old, k) => (k === i ? v : old))
  return { pz: put(pz, between(pz, z, 0.15, 3)), px: put(px, between(px, x, 0.02, 3)) }
}

// Each strip before and after: `[low, high, height]`, the height being mass over width.
export function strips(edges, mass, values) {
  const row = ends => ends.slice(1).map((b, k) => [Math.min(b, ends[k]), Math.max(b, ends[k]), mass / Math.abs(b - ends[k])])
  return [row(edges), row(edges.map(z => pushed(z, values).x))]
}

function reading(values, [before, after], k) {
  const { a, z } = values, { x, slope, p } = pushed(z, values)
  if (a === 0) return 'a = 0: all probability lies in one point, and there is no density.'
  const size = ([low, high, height]) => `${fixed(high - low)} × ${fixed(height)}`
  const strip = k < 0 ? '' : ` The strip around z, width × height: ${size(before[k])} before, ${size(after[k])} after.`
  const there = slope === 0 ? 'which is 0: p(x) is infinite' : `|${fixed(slope)}|: p(x) = ${fixed(p, 3)}`
  return `z = ${fixed(z)} goes to x = ${fixed(x)}. The density ${fixed(density(z), 3)} is divided by the slope there, ${there}.${strip}`
}

export default {
  render({ model, el }) {
    const { edges, mass, pz, px } = model.get('state')
    const reach = 3.2, line = range(321, -reach, reach)

    figure(model, el, {
      name: 'stretch',
      start: { map: 'drag the points', a: 1, z: -0.2, pz, px },
      controls: {
        map: { label: 'map f', options: Object.keys(MAPS) },
        a: { label: 'times a', min: -2, max: 2, step: 0.1, show: a => fixed(a, 1) },
      },
      setup(stage, set) {
        const side = 37 * 2 * reach, deep = 115, gap = 10  // one unit of each axis is as long, so areas compare
        const map = plane({ x: [-reach, reach], y: [-reach, reach], width: side + 36, height: side + 28 })
        const down = plane({ x: [-reach, reach], y: [0, 0.5], width: side + 36, height: 78, ticks: 0 })
        const left = { top: make('g'), under: make('g'), py: map.py, px: p => deep - 100 * p }
        const place = (g, x, y) => { g.setAttribute('transform', `translate(${x} ${y})`); return g }
        const name = (x, y, words, more = {}) => make('text', { x, y, ...more }, words)
        const axes = make('path', { fill: 'none', stroke: 'currentColor',
          d: `M${deep} ${map.py(reach)}V${map.py(-reach)}M${deep + gap + map.px(-reach)} ${map.height + down.py(0)}h${side}` })
        const room = make('clipPath', { id: 'stretch-room' }, make('rect', { x: 0, y: map.py(reach), width: deep, height: side }))
        const clip = make('clipPath', { id: 'stretch-map' }, make('rect', { x: map.px(-reach) - 40, y: map.py(reach), width: side + 40, height: side }))
        left.under.setAttribute('clip-path', 'url(#stretch-room)')
        map.under.setAttribute('clip-path', 'url(#stretch-map)')
        const g = make('g', {}, make('defs', {}, room, clip), left.under, left.top,
          place(map.g, deep + gap, 0), place(down.g, deep + gap, map.height), axes,
          name(4, 16, 'density of x'), name(deep + gap + 36, 16, 'x = a f(z)'),
          name(deep + 32, map.height + 40, 'density of z', { 'text-anchor': 'end' }))
        const row = board(stage, [{ g, width: deep + gap + map.width, height: map.height + down.height }],
          'The density of z, the map from z to x, and the density of x')
        row.style.justifyContent = 'center'
        row.firstChild.style.maxWidth = '500px'

        const stroke = (color, width = 2, more = {}) => make('path', { fill: 'none', stroke: color, 'stroke-width': width, ...more })
        const bars = [[down, COLORS.latent], [left, COLORS.model]].map(([p, color]) =>
          edges.slice(1).map((_, k) => {
            const bar = make('rect', { fill: color, 'fill-opacity': k % 2 ? 0.55 : 0.3 })
            p.under.append(bar)
            return bar
          }))
        const band = make('path', { fill: COLORS.data, 'fill-opacity': 0.35 })
        const threads = stroke(COLORS.floor, 0.7, { 'stroke-opacity': 0.7 })
        const graph = stroke('currentColor'), bell = stroke(COLORS.latent), hill = stroke(COLORS.model)
        const [spot, seen] = [0, 1].map(() => make('circle', { r: 4, fill: COLORS.data, stroke: 'currentColor' }))
        map.under.append(band, threads, graph, spot)
        down.under.append(bell)
        left.under.append(hill, seen)
        bell.setAttribute('d', down.path(line.map(z => [z, density(z)])))
        let now
        const knots = pz.map((_, i) => handle(map, {
          label: `point ${i + 1} of the curve`, color: COLORS.model,
          move: ([z, x]) => now.a !== 0 && set(moved(now, i, [z, x / now.a])),
        }))
        const probe = handle(down, { label: 'z', free: 'x', color: COLORS.data, move: ([z]) => set({ z }) })

        const put = (e, entries) => Object.entries(entries).forEach(([k, v]) => e.setAttribute(k, v))
        return values => {
          now = values
          const { a, z } = values, pairs = strips(edges, mass, values)
          const k = edges.filter(e => e <= z).length - 1
          const mine = k < edges.length - 1 ? k : -1
          pairs[0].forEach(([low, high, height], i) => put(bars[0][i], { x: down.px(low), width: down.px(high) - down.px(low), y: down.py(height), height: down.py(0) - down.py(height) }))
          pairs[1].forEach(([low, high, height], i) => {
            const thick = Math.min(100 * height, 4 * deep)
            put(bars[1][i], { x: deep - thick, width: a === 0 ? 0 : thick, y: map.py(high), height: map.py(low) - map.py(high) })
          })
          bars.forEach((both, side) => both.forEach((bar, i) => bar.setAttribute('fill', i === mine ? COLORS.data : [COLORS.latent, COLORS.model][side])))
          const across = map.px(-reach) - 40, floor = map.py(-reach)
          const to = z => [map.px(z), map.py(pushed(z, values).x)]
          threads.setAttribute('d', edges.map(e => { const [u, v] = to(e); return `M${u} ${floor}V${v}H${across}` }).join(''))
          const [[u, v], [r, w]] = mine < 0 ? [[0, 0], [0, 0]] : [to(edges[mine]), to(edges[mine + 1])]
          band.setAttribute('d', mine < 0 ? '' : `M${u} ${floor}V${v}H${across}V${w}H${r}V${floor}Z`)
          graph.setAttribute('d', map.path(line.map(z => [z, clamp(pushed(z, values).x, -9, 9)])))
          const shown = line.map(z => pushed(z, values)).filter(({ x, p }) => Math.abs(x) < 4 && p < 9)
          hill.setAttribute('d', a === 0 ? '' : shown.map(({ x, p }, i) => `${i ? 'L' : 'M'}${left.px(p).toFixed(1)} ${map.py(x).toFixed(1)}`).join(''))
          const { x, p } = pushed(z, values)
          put(spot, { cx: map.px(z), cy: map.py(x) })
          put(seen, { cx: left.px(Math.min(p, 9)), cy: map.py(x), r: a === 0 ? 0 : 4 })
          knots.forEach((show, i) => show([values.pz[i], a * values.px[i]]))
          for (const dot of map.top.children) dot.style.display = values.map === 'drag the points' && a !== 0 ? '' : 'none'
          probe([z, 0])
          return reading(values, pairs, mine)
        }
      },
    })
  },
}
