// A figure that moves, in forty lines: copy it, and change every line but the first import.
// One finds: a density that is stretched sinks, and its area stays one.

import { COLORS, board, figure, fixed, handle, plane, make, range } from './lib.mjs'

const density = z => Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI)

// The mathematics is exported, so that a test can hold it against the book's own code.
export function stretch(z, { a, b }) {
  return { x: a * z + b, density: density(z) / Math.abs(a) }
}

export default {
  render({ model, el }) {
    const { points } = model.get('state')
    figure(model, el, {
      name: 'template',
      start: { a: 1.5, b: 0, z: 0.8 },
      controls: {
        a: { label: 'slope a', min: 0.25, max: 3, step: 0.05 },
        b: { label: 'shift b', min: -2, max: 2, step: 0.1 },
      },
      setup(stage, set) {
        const p = plane({ x: [-5, 5], y: [0, 1.7], width: 600, height: 220, title: 'density of z and of x = a z + b' })
        board(stage, [p], 'Two densities over one axis')
        const before = make('path', { fill: 'none', stroke: COLORS.latent, 'stroke-width': 2 })
        const after = make('path', { fill: 'none', stroke: COLORS.model, 'stroke-width': 2 })
        p.under.append(before, after)
        before.setAttribute('d', p.path(range(points, -5, 5).map(z => [z, density(z)])))
        const point = handle(p, { label: 'z', free: 'x', color: COLORS.latent, move: ([z]) => set({ z }) })
        return values => {
          after.setAttribute('d', p.path(range(points, -5, 5).map(z => {
            const made = stretch(z, values)
            return [made.x, made.density]
          }).filter(([x]) => Math.abs(x) <= 5)))
          point([values.z, 0])
          const made = stretch(values.z, values)
          return `z = ${fixed(values.z)} goes to x = ${fixed(made.x)}; the density falls from `
            + `${fixed(density(values.z), 3)} to ${fixed(made.density, 3)}.`
        }
      },
    })
  },
}
