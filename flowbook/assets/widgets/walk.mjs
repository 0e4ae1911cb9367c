// Two points, and two ways between them: straight in x, or straight in z.
// One finds: the way that is straight in z follows the banana, the one that is straight in x crosses its empty inside.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, play, range } from './lib.mjs'
import { chain, logNormal } from './flow2d.mjs'

const mixed = (a, b, t) => a.map((v, i) => v + t * (b[i] - v))

// A place on the straight line between two latent points, with its data point and the density there.
export function straightInZ(flow, za, zb, t) {
  const z = mixed(za, zb, t)
  const { states, sums } = flow.trace(z)
  return { z, x: states.at(-1), logP: logNormal(z) - sums.at(-1) }
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

const LOWEST = -20

export default {
  render({ model, el }) {
    const { layers, points, window: frame, ends } = model.get('state')
    const flow = chain(layers)
    const ways = [
      { go: straightInZ, at: 'z', color: COLORS.latent, dash: 'none', title: 'straight in z' },
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
        const small = { width: 200, height: 205 }
        const planes = [
          plane({ x: [-4, 4], y: [-4, 4], title: 'latent plane z', ...small }),
          plane({ x: frame.slice(0, 2), y: frame.slice(2), title: 'data plane x', ...small }),
          plane({ x: [0, 1], y: [LOWEST, 7], title: 'log p on the way, nats', ...small, ticks: 3 }),
        ]
        board(stage, planes, 'Two ways between two points')
        const [latent, data, profile] = planes
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
        ways.forEach(({ color, dash, title }, i) => profile.under.append(
          make('path', { d: profile.path([[0.1, -14.5 - 2.6 * i], [0.22, -14.5 - 2.6 * i]]), stroke: color, 'stroke-width': 2, 'stroke-dasharray': dash }),
          make('text', { x: profile.px(0.26), y: profile.py(-15 - 2.6 * i) }, title)))
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
            const shown = [steps.map(q => q.z), steps.map(q => q.x), steps.map(q => [q.s, Math.max(q.logP, LOWEST)])]
            const here = walk(t)
            const spots = [here.z, here.x, [t, Math.max(here.logP, LOWEST)]]
            planes.forEach((p, i) => {
              const seen = within(p, [spots[i]])
              way.paths[i].setAttribute('d', within(p, shown[i]))
              way.spots[i].setAttribute('visibility', seen ? 'visible' : 'hidden')
              way.spots[i].setAttribute('cx', p.px(spots[i][0]))
              way.spots[i].setAttribute('cy', p.py(spots[i][1]))
            })
            const least = Math.min(...steps.map(q => q.logP))
            return `${way.title} ${fixed(here.logP, 1)} (lowest ${fixed(least, 1)}), at z = (${here.z.map(v => fixed(v, 1)).join(', ')})`
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
