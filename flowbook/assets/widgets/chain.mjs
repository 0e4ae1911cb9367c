// Drag a point of noise, and watch where each layer of a trained flow carries it.
// One finds: each coupling moves one coordinate, and together they make two moons of a round cloud.

import { COLORS, board, figure, fixed, handle, make, plane, play, range } from './lib.mjs'
import { chain, logNormal } from './flow2d.mjs'

const mix = (a, b, t) => a + t * (b - a)

// The state between layers `⌊k⌋` and `⌊k⌋ + 1`, on a straight line.
export function between(states, k) {
  const i = Math.min(Math.floor(k), states.length - 2)
  return states[i].map((v, j) => mix(v, states[i + 1][j], k - i))
}

// The limits of the picture after `k` layers: `[[x0, x1], [y0, y1]]`.
export function limits(windows, k) {
  const i = Math.min(Math.floor(k), windows.length - 2)
  return windows[i].map((row, a) => row.map((v, b) => mix(v, windows[i + 1][a][b], k - i)))
}

// What the read-out says of the point after `k` layers.
export function reading({ states, sums }, k) {
  const i = Math.round(k), last = states.length - 1
  const [a, b] = states[i]
  const where = i === 0 ? 'Noise' : i === last ? 'Data' : `After layer ${i} of ${last}`
  const base = logNormal(states[0]), sum = sums[i]
  const minus = sum < 0 ? `(${fixed(sum)})` : fixed(sum)
  return `${where}: the point is at (${fixed(a)}, ${fixed(b)}). Log density here: that of the noise less the `
    + `log-determinants, ${fixed(base)} − ${minus} = ${fixed(base - sum)} nats.`
}

const hue = ([a, b]) => {
  const wheel = [COLORS.latent, COLORS.other, COLORS.data, COLORS.model]
  const turn = (Math.atan2(b, a) / (2 * Math.PI) + 1) % 1 * 4
  return `color-mix(in srgb, ${wheel[Math.floor(turn) % 4]}, ${wheel[Math.ceil(turn) % 4]} ${Math.round(turn % 1 * 100)}%)`
}

// Lines of a square grid, each as a list of points.
function grid(reach, n = 9, m = 65) {
  const lines = []
  for (const c of range(n, -reach, reach)) {
    lines.push(range(m, -reach, reach).map(v => [c, v]))
    lines.push(range(m, -reach, reach).map(v => [v, c]))
  }
  return lines
}

export default {
  render({ model, el }) {
    const { layers, windows, points } = model.get('state')
    const flow = chain(layers), last = layers.length
    const cloud = points.map(z => flow.trace(z).states)
    const lines = grid(2.4).map(line => line.map(z => flow.trace(z).states))

    figure(model, el, {
      name: 'chain',
      start: { k: model.get('state').k ?? 0, z: [0.9, -0.7] },
      controls: {
        k: { label: 'layers', min: 0, max: last, step: 0.05, show: k => fixed(k, Number.isInteger(k) ? 0 : 1) },
        go: { label: 'Play', press: set => play(set, 'k', 0, last, 4) },
      },
      setup(stage, set) {
        const room = plane({ x: [0, 1], y: [0, 1], width: 330, height: 250, ticks: 0 })
        const bars = plane({ x: [0, last], y: [-4, 4], width: 200, height: 250, title: 'log-determinant: layer, sum' })
        board(stage, [room, bars], 'The plane after some layers, and the log-determinants so far')
        const warp = lines.map(() => make('path', { fill: 'none', stroke: COLORS.floor, 'stroke-opacity': 0.5 }))
        const dots = points.map(z => make('circle', { r: 2, style: `fill: ${hue(z)}` }))
        const trail = make('path', { fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'stroke-dasharray': '3 3' })
        room.under.append(...warp, ...dots, trail)
        const columns = layers.map(() => make('rect', {}))
        const sum = make('path', { fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 })
        bars.under.append(make('path', { d: bars.path([[0, 0], [last, 0]]), stroke: COLORS.floor }), ...columns, sum)

        let view
        const unit = ([a, b]) => [(a - view[0][0]) / (view[0][1] - view[0][0]), (b - view[1][0]) / (view[1][1] - view[1][0])]
        const moved = handle(room, {
          label: 'the point', step: 0.02, color: 'currentColor',
          move: ([a, b]) => {
            const x = [mix(...view[0], a), mix(...view[1], b)]
            const at = Math.round(now.k)
            set({ k: at, z: flow.inverse(x, at)[0].map(v => Math.min(Math.max(v, -4), 4)) })
          },
        })
        let now
        return values => {
          now = values
          const { k } = values
          view = limits(windows, k)
          lines.forEach((line, i) => warp[i].setAttribute('d', room.path(line.map(s => unit(between(s, k))))))
          cloud.forEach((states, i) => {
            const [a, b] = unit(between(states, k))
            dots[i].setAttribute('cx', room.px(a))
            dots[i].setAttribute('cy', room.py(b))
          })
          const trace = flow.trace(values.z)
          const here = between(trace.states, k)
          trail.setAttribute('d', room.path(trace.states.slice(0, Math.ceil(k)).concat([here]).map(unit)))
          moved(unit(here))
          trace.sums.slice(1).forEach((total, i) => {
            const size = total - trace.sums[i], done = i < Math.round(k)
            const [a, b] = [bars.py(Math.max(size, 0)), bars.py(Math.min(size, 0))]
            const place = { x: bars.px(i + 0.15), width: bars.px(0.7) - bars.px(0), y: a, height: b - a }
            for (const [name, v] of Object.entries(place)) columns[i].setAttribute(name, v)
            columns[i].setAttribute('fill', size > 0 ? COLORS.data : COLORS.latent)
            columns[i].setAttribute('fill-opacity', done ? 1 : 0.25)
          })
          sum.setAttribute('d', bars.path(trace.sums.slice(0, Math.round(k) + 1).map((s, i) => [i, s])))
          return reading(trace, k)
        }
      },
    })
  },
}
