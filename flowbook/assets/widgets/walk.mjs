// Two points, and three ways between them: straight in x, straight in z, or round the origin of z.
// One finds: both ways in z follow the banana, the straight one in x leaves it; the round one keeps the norm.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, play, range } from './lib.mjs'
import { chain, logNormal } from './flow2d.mjs'

const mixed = (a, b, t) => a.map((v, i) => v + t * (b[i] - v))

// A latent point with its data point and the density there.
function fromZ(flow, z) {
  const { states, sums } = flow.trace(z)
  return { z, x: states.at(-1), logP: logNormal(z) - sums.at(-1) }
}

// A place on the straight line between two latent points.
export const straightInZ = (flow, za, zb, t) => fromZ(flow, mixed(za, zb, t))

// A place on the way that turns the shorter way round, at a norm between those of its ends.
export function roundInZ(flow, za, zb, t) {
  const [a, b] = [za, zb].map(([u, v]) => Math.atan2(v, u))
  const turn = Math.atan2(Math.sin(b - a), Math.cos(b - a))
  const [norm] = mixed([Math.hypot(...za)], [Math.hypot(...zb)], t)
  return fromZ(flow, [norm * Math.cos(a + t * turn), norm * Math.sin(a + t * turn)])
}

// The same on the straight line between two data points.
export function straightInX(flow, a, b, t) {
  const x = mixed(a, b, t)
  const [z, sum] = flow.inverse(x)
  return { z, x, logP: logNormal(z) + sum }
}

// A path that is broken where it leaves the plane.
function within(p, points) {
  const inside = ([a, b]) => a >= p.x[0] && a <= p.x[1] && b >= p.y[0] && b <= p.y[1]
  const pieces = [[]]
  for (const q of points) inside(q) ? pieces.at(-1).push(q) : pieces.at(-1).length && pieces.push([])
  return pieces.map(piece => p.path(piece)).join('')
}

const LOWEST = -20, FARTHEST = 5

export default {
  render({ model, el }) {
    const { layers, points, window: frame, ends } = model.get('state')
    const flow = chain(layers)
    const ways = [
      { go: straightInZ, at: 'z', color: COLORS.latent, dash: 'none', title: 'straight in z' },
      { go: roundInZ, at: 'z', color: COLORS.other, dash: '9 3 2 3', title: 'round in z' },
      { go: straightInX, at: 'x', color: COLORS.data, dash: '6 4', title: 'straight in x' },
    ]

    figure(model, el, {
      name: 'walk',
      start: { t: 0.5, a: ends[0], b: ends[1] },
      controls: {
        t: { label: 'share of the way', min: 0, max: 1, step: 0.01 },
        go: { label: 'Walk', press: set => play(set, 't', 0, 1, 4) },
      },
      setup(stage, set) {
        const half = { x: [0, 1], width: 200, height: 103, ticks: 3 }
        const planes = [
          plane({ x: [-4, 4], y: [-4, 4], width: 200, height: 206, title: 'latent plane z' }),
          plane({ x: frame.slice(0, 2), y: frame.slice(2), width: 200, height: 206, title: 'data plane x' }),
          plane({ y: [LOWEST, 7], title: 'log p on the way, nats', ...half }),
          plane({ y: [0, FARTHEST], title: 'norm of z on the way', ...half }),
        ]
        const [latent, data, profile, norms] = planes
        norms.g.setAttribute('transform', 'translate(0 103)')
        board(stage, [latent, data, { g: make('g', {}, profile.g, norms.g), width: 200, height: 206 }],
          'Three ways between two points')
        for (const z of points) {
          const x = flow.trace(z).states.at(-1)
          for (const [p, [a, b]] of [[latent, z], [data, x]])
            if (within(p, [[a, b]])) p.under.append(make('circle', { cx: p.px(a), cy: p.py(b), r: 1.3, fill: COLORS.floor, 'fill-opacity': 0.6 }))
        }
        for (const way of ways) {
          way.paths = planes.map(() => make('path', { fill: 'none', stroke: way.color, 'stroke-width': 2, 'stroke-dasharray': way.dash }))
          way.spots = planes.map(() => make('circle', { r: 4.5, fill: way.color }))
          planes.forEach((p, i) => p.under.append(way.paths[i], way.spots[i]))
        }
        const legend = make('p', { style: 'display: flex; flex-wrap: wrap; gap: 0 1.4em; margin: .2em 0' })
        for (const { color, dash, title } of ways) {
          const line = make('path', { d: 'M0 5H34', stroke: color, 'stroke-width': 2.5, 'stroke-dasharray': dash })
          const swatch = make('svg', { viewBox: '0 0 34 10', style: 'display: inline-block; width: 34px; margin-right: 6px' })
          swatch.append(line)
          legend.append(make('span', {}, swatch, title))
        }
        stage.append(legend)
        const place = x => x.map((v, i) => clamp(v, ...[data.x, data.y][i]))
        const both = ['a', 'b'].map(key => [
          handle(latent, { label: `z of end ${key}`, color: COLORS.model, step: 0.1, r: 6,
            move: z => set({ [key]: place(flow.trace(z).states.at(-1)) }) }),
          handle(data, { label: `x of end ${key}`, color: COLORS.model, step: 0.01, r: 6, move: x => set({ [key]: x }) }),
        ])
        return ({ t, a, b }) => {
          const latentEnds = [a, b].map(x => flow.inverse(x)[0])
          const said = ways.map(way => {
            const walk = s => way.go(flow, ...(way.at === 'z' ? latentEnds : [a, b]), s)
            const steps = range(121, 0, 1).map(s => ({ s, ...walk(s) }))
            const drawn = q => [q.z, q.x, [q.s, Math.max(q.logP, LOWEST)], [q.s, Math.min(Math.hypot(...q.z), FARTHEST)]]
            const here = { s: t, ...walk(t) }, spots = drawn(here)
            const lines = planes.map((_, i) => steps.map(q => drawn(q)[i]))
            planes.forEach((p, i) => {
              const seen = within(p, [spots[i]])
              way.paths[i].setAttribute('d', within(p, lines[i]))
              way.spots[i].setAttribute('visibility', seen ? 'visible' : 'hidden')
              way.spots[i].setAttribute('cx', p.px(spots[i][0]))
              way.spots[i].setAttribute('cy', p.py(spots[i][1]))
            })
            const least = Math.min(...steps.map(q => q.logP))
            return `${way.title} ${fixed(here.logP, 1)} (lowest ${fixed(least, 1)}) at norm ${fixed(Math.hypot(...here.z), 1)}`
          })
          both.forEach(([inZ, inX], i) => {
            const x = [a, b][i]
            inX(x)
            inZ(latentEnds[i].map(v => clamp(v, -4, 4)))
          })
          return `Log-density at ${fixed(t)} of the way, nats: ${said.join('; ')}.`
        }
      },
    })
  },
}
