// Four sliders for what a network may say, and an affine coupling that does it, in both directions.
// One finds: only the log-scale changes volume, and the way back never inverts the network.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, range } from './lib.mjs'
import { bounded, logNormal } from './flow2d.mjs'

const LAYERS = { 'affine, bound 3': 3, 'affine, no bound': null, 'additive': 0 }

// Log-scale and shift for the coordinate `u` that is read.
export function says({ layer, a, b, c, d, shift }, u) {
  const raw = a * u + b * Math.sin(1.6 * u), bound = LAYERS[layer]
  const log_s = bound === null ? raw : bound === 0 ? 0 : bounded(raw, bound)
  return { log_s, t: shift + c * u + d * u * u }
}

// Both directions ask at the coordinate that is copied; each returns the point and its log-determinant.
export function forward(values, [u, z]) {
  const { log_s, t } = says(values, u)
  return [[u, z * Math.exp(log_s) + t], log_s]
}
export function inverse(values, [u, x]) {
  const { log_s, t } = says(values, u)
  return [[u, (x - t) * Math.exp(-log_s)], -log_s]
}

// Orange where a column is squeezed, blue where it is stretched.
const tint = log_s => `color-mix(in srgb, ${COLORS.floor}, ${log_s < 0 ? COLORS.data : COLORS.latent} ${Math.round(100 * Math.min(Math.abs(log_s), 1))}%)`

const FAR = 6
const scale = log_s => (Math.abs(log_s) < 4 ? fixed(Math.exp(log_s)) : `e^${fixed(log_s, 1)}`)
const plus = t => (t < 0 ? `− ${fixed(-t)}` : `+ ${fixed(t)}`)

function reading(values) {
  const { z } = values, [x, log_s] = forward(values, z), s = scale(log_s)
  const { t } = says(values, z[0]), [home] = inverse(values, x)
  return `u = ${fixed(z[0])} is copied, and there s = ${s} and t = ${fixed(t)}. `
    + `Forward: ${s} · ${fixed(z[1])} ${plus(t)} = ${fixed(x[1])}; back: (${fixed(x[1])} ${plus(-t)}) / ${s} = ${fixed(home[1])}. `
    + `log |det| = log s = ${fixed(log_s)}. Far out, at u = ${FAR}, the scale is ${scale(says(values, FAR).log_s)}.`
}

export default {
  render({ model, el }) {
    const { coefficients, shift, points } = model.get('state')
    const reach = 2, high = 1.5, wide = [-2.5, 2.5], tall = [-4.4, 5]
    const lines = range(21, -reach, reach), levels = range(11, -high, high), steps = range(41, -reach, reach)
    const ways = range(81, ...wide)

    figure(model, el, {
      name: 'affine',
      start: { layer: 'affine, bound 3', ...coefficients, z: [1.2, 1] },
      controls: {
        layer: { label: 'layer', options: Object.keys(LAYERS) },
        a: { label: 'log s: slope a', min: -1.5, max: 1.5, step: 0.05 },
        b: { label: 'log s: wave b', min: -1.5, max: 1.5, step: 0.05 },
        c: { label: 't: slope c', min: -1, max: 1, step: 0.05 },
        d: { label: 't: bend d', min: -1, max: 1, step: 0.05 },
      },
      setup(stage, set) {
        const height = 260
        const told = plane({ x: wide, y: [-2.6, 3.4], width: 192, height, title: 'what the network says of u' })
        const before = plane({ x: wide, y: tall, width: 210, height, ticks: 5, title: 'z = (u, z₂)' })
        const after = plane({ x: wide, y: tall, width: 210, height, ticks: 5, title: 'x = (u, s z₂ + t)' })
        const planes = [before, after], all = [...planes, told]
        const row = board(stage, all, 'The plane before the layer, the plane after it, and what the network says')
        all.forEach((p, i) => {  // on a phone z and x stay side by side
          row.children[i].style.flexBasis = `${0.66 * p.width}px`
          row.children[i].style.maxWidth = `${1.25 * p.width}px`
        })
        const clips = [told, after].map((p, i) => {
          const box = make('rect', { x: p.px(p.x[0]), y: p.py(p.y[1]), width: p.px(p.x[1]) - p.px(p.x[0]), height: p.py(p.y[0]) - p.py(p.y[1]) })
          p.under.setAttribute('clip-path', `url(#affine-room-${i})`)
          return make('clipPath', { id: `affine-room-${i}` }, box)
        })
        told.g.append(make('defs', {}, ...clips))

        const stroke = (p, color, width = 1, more = {}) => {
          const e = make('path', { fill: 'none', stroke: color, 'stroke-width': width, ...more })
          p.under.append(e)
          return e
        }
        stroke(told, COLORS.floor).setAttribute('d', told.path([[wide[0], 0], [wide[1], 0]]))
        const curves = [stroke(told, COLORS.model, 2.5), stroke(told, COLORS.other, 2.5)]
        const legend = ['log s: a u + b sin 1.6u', `t: c u + d u² ${plus(shift)}`].flatMap((text, i) => [
          make('path', { d: `M34 ${34 + 16 * i}h12`, stroke: [COLORS.model, COLORS.other][i], 'stroke-width': 2.5 }),
          make('text', { x: 50, y: 38 + 16 * i }, text)])
        const asked = stroke(told, COLORS.data, 1.2)
        told.under.append(...legend)
        const rows = planes.map(p => levels.map(() => stroke(p, COLORS.floor, 0.8, { 'stroke-opacity': 0.5 })))
        const columns = planes.map(p => lines.map(() => stroke(p, COLORS.floor, 1.6)))
        const clouds = planes.map(p => points.map(() => {
          const dot = make('circle', { r: 1.4, fill: 'currentColor', 'fill-opacity': 0.55 })
          p.under.append(dot)
          return dot
        }))
        const path = planes.map(p => stroke(p, COLORS.data, 1.5, { 'stroke-dasharray': '3 3' }))
        const ends = [
          handle(before, { label: 'z', r: 8, move: z => set({ z }) }),
          handle(after, { label: 'x', r: 8, move: x => set({ z: inverse(now, x)[0].map((v, i) => clamp(v, ...[wide, tall][i])) }) }),
        ]
        let now

        return given => {
          now = { ...given, shift }
          const maps = [z => z, z => forward(now, z)[0]]
          const heard = ways.map(u => [u, says(now, u)])
          curves[0].setAttribute('d', told.path(heard.map(([u, { log_s }]) => [u, log_s])))
          curves[1].setAttribute('d', told.path(heard.map(([u, { t }]) => [u, t])))
          planes.forEach((p, i) => {
            lines.forEach((u, k) => {
              columns[i][k].setAttribute('d', p.path([[u, -high], [u, high]].map(maps[i])))
              columns[i][k].setAttribute('style', `stroke: ${tint(says(now, u).log_s)}`)
            })
            rows[i].forEach((e, k) => e.setAttribute('d', p.path(steps.map(u => maps[i]([u, levels[k]])))))
            points.forEach((z, k) => {
              const [a, b] = maps[i](z)
              clouds[i][k].setAttribute('cx', p.px(a))
              clouds[i][k].setAttribute('cy', p.py(b))
            })
            ends[i](maps[i](now.z))
            path[i].setAttribute('d', p.path([[now.z[0], 0], now.z].map(maps[i])))
          })
          const { log_s, t } = says(now, now.z[0])
          asked.setAttribute('d', told.path([[now.z[0], log_s], [now.z[0], t]]))
          return reading(now)
        }
      },
    })
  },
}
