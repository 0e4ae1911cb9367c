// Drag a small square, and see what a map makes of it: its area, its parallelogram, its sign.
// One finds: a shear changes no area; around its centre, the ratio of a small square errs by the square of its side.

import { COLORS, board, clamp, figure, fixed, handle, make, plane, range } from './lib.mjs'

// The maps of the chapter, each with its Jacobian matrix by hand.
const MAPS = {
  bend: {
    at: ([a, b]) => [a + b * b / 2, b + Math.sin(1.5 * a) / 2],
    slopes: ([a, b]) => [[1, b], [0.75 * Math.cos(1.5 * a), 1]],
  },
  fold: {
    at: ([a, b]) => [a + b / 2, b * b],
    slopes: ([, b]) => [[1, 0.5], [0, 2 * b]],
  },
  identity: { at: z => z, slopes: () => [[1, 0], [0, 1]] },
}

// One of the maps, and after it a stretch and a shear: `(y1, y2) → (y1, e^(r y1) y2 + t y1²)`.
export function warp({ map, r, t }) {
  const { at, slopes } = MAPS[map]
  return {
    at: z => {
      const [a, b] = at(z)
      return [a, b * Math.exp(r * a) + t * a * a]
    },
    slopes: z => {
      const [a, b] = at(z), [above, below] = slopes(z), e = Math.exp(r * a)
      return [above, below.map((v, i) => e * v + (r * b * e + 2 * t * a) * above[i])]
    },
  }
}

export const det = ([[a, b], [c, d]]) => a * d - b * c

// The square of side 1 around the origin, counter-clockwise from its lower left corner.
export function outline(n) {
  const t = range(n + 1, -0.5, 0.5).slice(0, n)
  return [...t.map(v => [v, -0.5]), ...t.map(v => [0.5, v]), ...t.map(v => [-v, 0.5]), ...t.map(v => [-0.5, -v])]
}

// Area of a polygon; negative if its corners run clockwise.
export function signedArea(p) {
  return p.reduce((sum, [a, b], i) => {
    const [c, d] = p[(i + 1) % p.length]
    return sum + a * d - b * c
  }, 0) / 2
}

// The square of side h that has `z` as its centre or as its lower left corner.
const OFFSETS = { centre: 0, corner: 0.5 }
export const square = (z, h, role, n) =>
  outline(n).map(p => p.map((v, i) => z[i] + h * (v + OFFSETS[role])))

// By what factor the map changes the area of that square, on a polygon of 64 points a side.
export function areaRatio(f, z, h, role = 'centre', n = 64) {
  const [a, b] = f.at(z)
  const image = square(z, h, role, n).map(f.at).map(([c, d]) => [c - a, d - b])
  return signedArea(image) / h ** 2
}

// The image of the square under the Jacobian matrix at `z`.
export function parallelogram(f, z, h, role) {
  const at = f.at(z), J = f.slopes(z)
  return square(z, h, role, 1).map(p => {
    const d = p.map((v, i) => v - z[i])
    return at.map((v, i) => v + J[i][0] * d[0] + J[i][1] * d[1])
  })
}

const LEAST = 1e-5  // of an error that is drawn
const SIDES = [0.05, 1.2]

// What the read-out says.
function reading({ map, role, h, r, t, z }) {
  const f = warp({ map, r, t }), J = det(f.slopes(z))
  const error = areaRatio(f, z, h, role) - J, half = areaRatio(f, z, h / 2, role) - J
  const shrinks = Math.abs(half) < LEAST / 10 ? 'The error is 0, to the digits that are shown'
    : `The error is ${fixed(error, 4)}; half the side makes it ${fixed(error / half, 2)} times smaller`
  return `Side ${fixed(h)}, with z = (${fixed(z[0])}, ${fixed(z[1])}) as its ${role}: area ratio ${fixed(J + error, 4)}, `
    + `det J ${fixed(J, 4)}. ${shrinks}.${J < 0 ? ' The square lands face down.' : ''}`
}

// Two logarithmic axes, with the errors of a centre and of a corner.
function errors(width, height) {
  const x = SIDES.map(Math.log10), y = [Math.log10(LEAST), 0.3]
  const p = plane({ x, y, width, height, ticks: 0, title: 'error against side h' })
  p.g.append(make('path', { d: p.path([[x[0], y[1]], [x[0], y[0]], [x[1], y[0]]]), fill: 'none', stroke: 'currentColor' }))
  for (const h of [0.1, 0.3, 1])
    p.g.append(make('text', { x: p.px(Math.log10(h)), y: height - 6, 'text-anchor': 'middle' }, String(h)))
  for (const [k, told] of [[0, '1'], [-1, '0.1'], [-2, '0.01'], [-3, '10⁻³'], [-4, '10⁻⁴']])
    p.g.append(make('text', { x: p.px(x[0]) - 4, y: p.py(k) + 4, 'text-anchor': 'end' }, told))
  return p
}

export default {
  render({ model, el }) {
    const { z: start, side, reach, window: view } = model.get('state')
    const steps = range(21, -reach, reach), lines = range(14, -reach, reach)
    const grid = [...lines.map(c => steps.map(v => [c, v])), ...lines.map(c => steps.map(v => [v, c]))]

    figure(model, el, {
      name: 'area',
      start: { map: 'bend', role: 'centre', h: side, r: 0, t: 0, z: start },
      controls: {
        map: { label: 'map', options: Object.keys(MAPS) },
        role: { label: 'z is the', options: Object.keys(OFFSETS) },
        h: { label: 'side h', min: SIDES[0], max: SIDES[1], step: 0.05 },
        r: { label: 'then stretch, r', min: -0.6, max: 0.6, step: 0.05 },
        t: { label: 'then shear, t', min: -0.6, max: 0.6, step: 0.05 },
      },
      setup(stage, set) {
        const scale = 49, tall = scale * (view.y[1] - view.y[0]) + 42
        const before = plane({ x: [-1.4, 1.4], y: view.y, width: 2.8 * scale + 36, height: tall, title: 'z' })
        const after = plane({ x: view.x, y: view.y, width: scale * (view.x[1] - view.x[0]) + 36, height: tall, title: 'x = f(z)' })
        const wrong = errors(612 - before.width - after.width, tall)
        const row = board(stage, [before, after, wrong], 'A square, its image, and the error of the area ratio against the side')
        ;[before, after, wrong].forEach((p, i) => {  // on a phone z and x stay side by side
          row.children[i].style.flexBasis = `${0.68 * p.width}px`
          row.children[i].style.maxWidth = `${1.25 * p.width}px`
        })

        const stripes = make('pattern', { id: 'area-stripes', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
          make('rect', { width: 3, height: 6, fill: COLORS.data }))
        const room = make('clipPath', { id: 'area-room' },
          make('rect', { x: after.px(view.x[0]), y: after.py(view.y[1]), width: after.px(view.x[1]) - after.px(view.x[0]), height: after.py(view.y[0]) - after.py(view.y[1]) }))
        after.g.append(make('defs', {}, stripes, room))
        after.under.setAttribute('clip-path', 'url(#area-room)')
        const stroke = (color, width = 1, more = {}) => make('path', { fill: 'none', stroke: color, 'stroke-width': width, ...more })
        const mesh = [before, after].map(p => grid.map(() => stroke(COLORS.floor, 1, { 'stroke-opacity': 0.45 })))
        const filled = [before, after].map(() => make('path', {}))
        const dashed = stroke('currentColor', 1.3, { 'stroke-dasharray': '4 3' })
        const sides = [before, after].map(() => [stroke(COLORS.latent, 3), stroke(COLORS.model, 3)])
        const image = make('circle', { r: 3.5, fill: 'currentColor' })
        before.under.append(...mesh[0], filled[0], ...sides[0])
        after.under.append(...mesh[1], filled[1], dashed, ...sides[1], image)
        grid.forEach((line, i) => mesh[0][i].setAttribute('d', before.path(line)))
        const curves = { centre: stroke(COLORS.model, 2), corner: stroke(COLORS.other, 2) }
        const names = { centre: make('text', { 'text-anchor': 'end' }, 'centre'), corner: make('text', { 'text-anchor': 'end' }, 'corner') }
        const here = make('circle', { r: 5, stroke: 'currentColor' })
        wrong.under.append(...Object.values(curves), here, ...Object.values(names))
        const point = handle(before, {
          label: 'the point z', step: 0.05, r: 8,
          move: z => set({ z: z.map(v => clamp(v, -reach, reach)) }),
        })

        return values => {
          const { role, h, z } = values
          const f = warp(values), J = det(f.slopes(z))
          grid.forEach((line, i) => mesh[1][i].setAttribute('d', after.path(line.map(f.at))))
          const flat = square(z, h, role, 1), linear = parallelogram(f, z, h, role)
          filled[0].setAttribute('d', `${before.path(flat)}Z`)
          filled[1].setAttribute('d', `${after.path(square(z, h, role, 24).map(f.at))}Z`)
          for (const e of filled) {
            e.setAttribute('fill', J < 0 && e === filled[1] ? 'url(#area-stripes)' : COLORS.data)
            e.setAttribute('fill-opacity', J < 0 && e === filled[1] ? 0.8 : 0.45)
          }
          dashed.setAttribute('d', `${after.path(linear)}Z`)
          for (const [p, corners, pair] of [[before, flat, sides[0]], [after, linear, sides[1]]]) {
            pair[0].setAttribute('d', p.path([corners[0], corners[1]]))
            pair[1].setAttribute('d', p.path([corners[0], corners[3]]))
          }
          const at = f.at(z)
          image.setAttribute('cx', after.px(at[0]))
          image.setAttribute('cy', after.py(at[1]))
          const log = (which, side) => [Math.log10(side), Math.log10(clamp(Math.abs(areaRatio(f, z, side, which, 32) - J), LEAST, 2))]
          for (const which of Object.keys(OFFSETS)) {
            const points = range(16, 0, 1).map(v => log(which, SIDES[0] * (SIDES[1] / SIDES[0]) ** v))
            curves[which].setAttribute('d', wrong.path(points))
            curves[which].setAttribute('stroke-opacity', which === role ? 1 : 0.5)
            names[which].setAttribute('x', wrong.px(points[7][0]))
            names[which].setAttribute('y', wrong.py(points[7][1]) - 6)
          }
          const [a, b] = log(role, h)
          here.setAttribute('cx', wrong.px(a))
          here.setAttribute('cy', wrong.py(b))
          here.setAttribute('fill', curves[role].getAttribute('stroke'))
          point(z)
          return reading(values)
        }
      },
    })
  },
}
