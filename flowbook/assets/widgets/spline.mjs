// Drag the knots of a rational-quadratic spline, and see its slope and the density it gives.
// One finds: a knot changes the density between its neighbours and nowhere else, and no drag breaks the map.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, range } from './lib.mjs'
import { along, back } from './rq.mjs'

// All knots: those that move between two that do not, where the slope is 1.
export function fenced({ v, u, d }, bound) {
  return { x: [-bound, ...v, bound], y: [-bound, ...u, bound], d: [1, ...d, 1] }
}

const logNormal = u => -u * u / 2 - Math.log(2 * Math.PI) / 2

// Log-density of `v` when `u` is standard normal.
export function logDensity(v, knots) {
  const [u, slope] = along(v, knots)
  return logNormal(u) + Math.log(slope)
}

// KL(p ‖ spline) in nats, by a sum over places with equal distances.
export function divergence(places, p, knots) {
  const step = places[1] - places[0]
  return places.reduce((sum, v, i) => sum + (p[i] > 0 ? step * p[i] * (Math.log(p[i]) - logDensity(v, knots)) : 0), 0)
}

// Knot `i` moves, and stays between its neighbours.
export function dragged({ v, u }, i, [a, b], bound) {
  const between = (row, to, gap) => {
    const all = [-bound, ...row, bound]
    return row.map((old, k) => (k === i ? clamp(to, all[k] + gap, all[k + 2] - gap) : old))
  }
  return { v: between(v, a, 0.1), u: between(u, b, 0.02) }
}

const LEAST = 0.03  // of a slope that can be set

export default {
  render({ model, el }) {
    const { bound, start, fitted, places, law, gaussian } = model.get('state')
    const n = start.v.length, edge = bound + 0.8
    const line = range(401, -edge, edge)
    const even = range(n + 2, -bound, bound).slice(1, -1)

    figure(model, el, {
      name: 'spline',
      start: { ...start, at: -0.6 },
      controls: {
        flat: { label: 'Identity', press: set => set({ v: even, u: even, d: even.map(() => 1) }) },
        fit: { label: 'Fitted', press: set => set(fitted) },
      },
      setup(stage, set) {
        const span = [-edge, edge]
        const map = plane({ x: span, y: span, width: 300, height: 318, ticks: 5, title: 'latent u against data v' })
        const slope = plane({ x: span, y: [0, 3], width: 310, height: 140, ticks: 5, title: 'slope du/dv' })
        const hills = plane({ x: span, y: [0, 0.55], width: 310, height: 178, ticks: 5, title: 'density of v' })
        hills.g.setAttribute('transform', `translate(0 ${slope.height})`)
        const room = make('clipPath', { id: 'spline-room' }, make('rect', { x: 30, y: 20, width: 274, height: slope.height - 42 }))
        const right = make('g', {}, make('defs', {}, room), slope.g, hills.g)
        board(stage, [map, { g: right, width: 310, height: 318 }], 'The spline, its slope, and the density')
        slope.under.setAttribute('clip-path', 'url(#spline-room)')

        const stroke = (p, color, width = 2, more = {}) => {
          const e = make('path', { fill: 'none', stroke: color, 'stroke-width': width, ...more })
          p.under.append(e)
          return e
        }
        const thin = { 'stroke-dasharray': '4 3' }
        stroke(map, COLORS.floor, 1, thin).setAttribute('d', map.path([[-edge, -edge], [edge, edge]]))
        const corners = [[-bound, -bound], [bound, -bound], [bound, bound], [-bound, bound]]
        stroke(map, COLORS.floor, 1, { 'stroke-opacity': 0.6 }).setAttribute('d', `${map.path(corners)}Z`)
        const mirror = stroke(map, COLORS.other, 1.3), graph = stroke(map, COLORS.model, 2.5)
        map.under.append(...[['u = g(v)', COLORS.model], ['its inverse', COLORS.other]].flatMap(([text, color], i) => [
          make('path', { d: `M60 ${52 + 16 * i}h14`, stroke: color, 'stroke-width': 2.5 - i }), make('text', { x: 80, y: 56 + 16 * i }, text)]))
        const ways = stroke(map, COLORS.data, 1.2)
        const steep = stroke(slope, COLORS.model, 2.5)
        const ours = make('path', { fill: COLORS.data, 'fill-opacity': 0.25, stroke: COLORS.data, 'stroke-width': 2 })
        hills.under.append(ours)
        stroke(hills, 'currentColor', 1.3, thin).setAttribute('d', hills.path(places.map((v, i) => [v, law[i]])))
        const marks = [slope, hills].map(p => stroke(p, COLORS.data, 1.2))

        let now
        const probe = handle(hills, { label: 'v', free: 'x', color: COLORS.data, move: ([at]) => set({ at }) })
        const knots = start.v.map((_, i) => handle(map, {
          label: `knot ${i + 1}`, color: COLORS.model, r: 6, move: to => set(dragged(now, i, to, bound)),
        }))
        const slopes = start.v.map((_, i) => handle(slope, {
          label: `slope at knot ${i + 1}`, color: COLORS.model, r: 6, free: 'y', step: 0.05,
          move: ([, d]) => set({ d: now.d.map((old, k) => (k === i ? Math.max(d, LEAST) : old)) }),
        }))

        return values => {
          now = values
          const all = fenced(values, bound), points = line.map(v => [v, ...along(v, all)])
          graph.setAttribute('d', map.path(points.map(([v, u]) => [v, u])))
          mirror.setAttribute('d', map.path(line.map(u => [u, back(u, all)[0]])))
          steep.setAttribute('d', slope.path(points.map(([v, , s]) => [v, Math.min(s, 9)])))
          const under = points.map(([v, u, s]) => [v, Math.min(s * Math.exp(logNormal(u)), 0.55)])
          ours.setAttribute('d', hills.path([[-edge, 0], ...under, [edge, 0]]))
          knots.forEach((show, i) => show([values.v[i], values.u[i]]))
          slopes.forEach((show, i) => show([values.v[i], values.d[i]]))
          const { at } = values, [u, s] = along(at, all), p = s * Math.exp(logNormal(u))
          probe([at, 0])
          ways.setAttribute('d', map.path([[at, -edge], [at, u], [-edge, u]]))
          marks[0].setAttribute('d', slope.path([[at, 0], [at, s]]))
          marks[1].setAttribute('d', hills.path([[at, 0], [at, Math.min(p, 0.55)]]))
          const [home] = back(u, all), gap = divergence(places, law, all)
          return `v = ${fixed(at)} goes to u = ${fixed(u)}, and the inverse brings it back to ${fixed(home)}. `
            + `Density: slope ${fixed(s)} times ${fixed(Math.exp(logNormal(u)), 3)} is ${fixed(p, 3)}. `
            + `KL(dashed ‖ yours) = ${fixed(gap, 3)} nats; the best Gaussian has ${fixed(gaussian, 3)}.`
        }
      },
    })
  },
}
