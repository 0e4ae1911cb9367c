// Noise scaled by a temperature: what a flow then draws, beside a power of its density.
// One finds: cooled noise draws from a power of the density only if the flow keeps volume.

import { COLORS, board, figure, fixed, handle, make, numbers, plane, play, range } from './lib.mjs'
import { chain } from './flow2d.mjs'

const LOW = 0.2, HIGH = 1.2

// Of the middle of each cell, row by row from above: `|z|²/2`, and the log-determinant of
// the way to the latent.
export const latents = told => ({ half: numbers(told.half), logDet: numbers(told.log_det) })

// Probabilities of cells from logarithms that lack a constant.
export function shares(log) {
  let most = -Infinity, sum = 0
  for (const v of log) most = Math.max(most, v)
  const p = Float64Array.from(log, v => Math.exp(v - most))
  for (const v of p) sum += v
  return p.map(v => v / sum)
}

// The law of f(T z'), and p to the power 1/T²; the two differ in what becomes of the determinant.
export const drawn = ({ half, logDet }, T) => shares(Float64Array.from(half, (h, i) => -h / T ** 2 + logDet[i]))
export const power = ({ half, logDet }, T) => shares(Float64Array.from(half, (h, i) => (-h + logDet[i]) / T ** 2))

// The total variation distance: how much probability one has to move.
export function distance(p, q) {
  let sum = 0
  for (let i = 0; i < p.length; i++) sum += Math.abs(p[i] - q[i])
  return sum / 2
}

// A picture of numbers: each as opaque as it is large, in a colour for its sign.
function picture(values, most, columns, rows, colors) {
  const canvas = make('canvas', { width: columns, height: rows })
  const ink = canvas.getContext('2d'), image = ink.createImageData(columns, rows)
  const rgb = colors.map(color => [1, 3, 5].map(k => parseInt(color.slice(k, k + 2), 16)))
  for (let i = 0; i < values.length; i++) {
    image.data.set(rgb[values[i] < 0 ? 1 : 0], 4 * i)
    image.data[4 * i + 3] = 255 * Math.sqrt(Math.abs(values[i]) / most)
  }
  ink.putImageData(image, 0, 0)
  return canvas.toDataURL()
}

// A plane with a place for such a picture.
function screen([x, y], title) {
  const p = plane({ x, y, width: 300, height: 196, title, ticks: 0 })
  const place = { x: p.px(x[0]), y: p.py(y[1]), width: p.px(x[1]) - p.px(x[0]), height: p.py(y[0]) - p.py(y[1]) }
  const map = make('image', { ...place, preserveAspectRatio: 'none' })
  p.under.append(map, make('rect', { ...place, fill: 'none', stroke: 'currentColor', 'stroke-opacity': 0.4 }))
  return { ...p, show: (...told) => map.setAttribute('href', picture(...told)) }
}

// What the read-out says.
export function reading(kind, T, far) {
  const start = `T = ${fixed(T)}, ${kind} flow: `
  if (Math.abs(T - 1) < 1e-9) return `${start}the flow as it is, and p to the power 1.`
  if (far < 0.005) return `${start}what is drawn is p to the power 1/T² = ${fixed(1 / T ** 2)}, to a distance of ${fixed(far, 3)}.`
  return `${start}of the probability of what is drawn, ${fixed(100 * far, 0)}\u00a0% lies elsewhere than p to the power 1/T² = ${fixed(1 / T ** 2)} has it.`
}

export default {
  render({ model, el }) {
    const { kinds, models, noise, window: view, columns, rows } = model.get('state')
    const flows = Object.fromEntries(kinds.map(k => [k, chain(models[k].layers)]))
    const inverse = Object.fromEntries(kinds.map(k => [k, latents(models[k])]))
    const centre = Object.fromEntries(kinds.map(k => [k, flows[k].trace([0, 0]).states.at(-1)]))
    const away = (kind, T) => distance(drawn(inverse[kind], T), power(inverse[kind], T))

    figure(model, el, {
      name: 'temperature',
      start: { kind: kinds[0], T: 0.7 },
      controls: {
        T: { label: 'temperature T', min: LOW, max: HIGH, step: 0.02 },
        kind: { label: 'couplings', options: kinds },
        go: { label: 'Cool down', press: set => play(set, 'T', HIGH, LOW, 4) },
      },
      setup(stage, set) {
        const left = screen(view, 'drawn: x = f(T z)'), right = screen(view, 'p to the power 1/T²')
        const differ = screen(view, 'too much (blue), too little (green)')
        const curve = plane({ x: [LOW, HIGH + 0.02], y: [0, 1], width: 300, height: 196, title: 'distance, for each T', ticks: 5 })
        board(stage, [left, right], 'What is drawn, and the power of the density')
        board(stage, [differ, curve], 'Where they differ, and by how much at each temperature')
        const dots = make('path', { fill: 'none', stroke: 'currentColor', 'stroke-width': 2.2, 'stroke-linecap': 'round', 'stroke-opacity': 0.75 })
        const cross = make('path', { fill: 'none', stroke: COLORS.data, 'stroke-width': 3 })
        left.top.append(dots, cross)
        const lines = kinds.map(() => make('path', { fill: 'none' }))
        curve.under.append(...lines)
        for (const [k, kind] of kinds.entries()) {
          const path = range(26, LOW, HIGH).map(T => [T, away(kind, T)])
          lines[k].setAttribute('d', curve.path(path))
          curve.under.append(make('text', { x: curve.px(0.5) + 4, y: curve.py(away(kind, 0.5)) - 8 }, kind))
        }
        const point = handle(curve, { label: 'temperature', free: 'x', color: COLORS.model, step: 0.02, move: ([T]) => set({ T: Math.min(T, HIGH) }) })
        const inside = ([a, b]) => a > view[0][0] && a < view[0][1] && b > view[1][0] && b < view[1][1]
        return ({ kind, T }) => {
          const laws = [drawn(inverse[kind], T), power(inverse[kind], T)]
          const both = [COLORS.latent, COLORS.model], most = laws.map(p => p.reduce((a, b) => Math.max(a, b)))
          left.show(laws[0], most[0], columns, rows, both)
          right.show(laws[1], most[1], columns, rows, [COLORS.model])
          differ.show(laws[0].map((v, i) => v - laws[1][i]), most[0], columns, rows, both)
          const made = noise.map(z => flows[kind].trace(z.map(v => T * v)).states.at(-1)).filter(inside)
          dots.setAttribute('d', made.map(([a, b]) => `M${left.px(a).toFixed(1)} ${left.py(b).toFixed(1)}h0`).join(''))
          const [a, b] = centre[kind]
          cross.setAttribute('d', `M${left.px(a) - 6} ${left.py(b)}h12m-6 -6v12`)
          kinds.forEach((k, i) => {
            lines[i].setAttribute('stroke', k === kind ? COLORS.model : COLORS.floor)
            lines[i].setAttribute('stroke-width', k === kind ? 2.5 : 1.5)
          })
          const far = distance(...laws)
          point([T, far])
          return reading(kind, T, far)
        }
      },
    })
  },
}
