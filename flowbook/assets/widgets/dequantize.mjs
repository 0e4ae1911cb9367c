// Boxes on grey levels, thinner and thinner, and pixels with noise that is uniform or learned.
// One finds: exact pixels score below every code; noise that fills its level or is learned ends at the entropy.

import { COLORS, board, figure, fixed, handle, make, plane, range } from './lib.mjs'

const sumOf = row => row.reduce((sum, v) => sum + v, 0)

// Bits of a law of levels.
export const entropyBits = law => -sumOf(law.map(p => p * Math.log2(p)))

// Density at a distance from the middle of a level: boxes of that width with the right
// frequencies, mixed with a uniform density of that weight.
export function boxDensity(p, width, levels, weight, distance) {
  const within = Math.abs(distance) <= width / 2
  return (within ? (1 - weight) * p / width : 0) + weight / levels
}

// Mean bits of pixels with uniform noise of a width around the middle of their level.
export function score(law, width, noise, weight) {
  const share = noise > width ? width / noise : 1
  const bits = (p, distance) => Math.log2(boxDensity(p, width, law.length, weight, distance))
  return -sumOf(law.map(p => p * (share * bits(p, 0) + (share < 1 ? (1 - share) * bits(p, width) : 0))))
}

// Bits of pixels whose noise follows the model's own law inside its level, and pays for it:
// what the model says over what the noise says is then the probability of the level.
const massOf = (p, levels, weight) => (1 - weight) * p + weight / levels
export const learnedScore = (law, weight) => -sumOf(law.map(p => p * Math.log2(massOf(p, law.length, weight))))

// The place in −1/2…1/2 below which such noise has a share of its probability.
export function ownPlace(share, p, width, levels, weight) {
  const room = (1 - width) / 2, beside = room * weight / levels / massOf(p, levels, weight)
  if (share < beside) return -0.5 + room * share / beside
  if (share > 1 - beside) return 0.5 - room * (1 - share) / beside
  return width * ((share - beside) / (1 - 2 * beside) - 0.5)
}

// Even places in −1/2…1/2, as many for a level as its frequency asks for.
const places = (law, n) => law.map(p => range(Math.max(2, Math.round(p * n)), -0.48, 0.48))

const verdict = (bits, entropy) => bits < 0 ? 'a code of negative length, which nobody can write'
  : bits < entropy - 0.05 ? 'less than the entropy, which no code can reach'
    : bits < entropy + 0.1 ? 'the entropy, as good as a code can be' : 'above the entropy, like every code'

const TALLEST = 2
const KINDS = ['uniform', 'learned']

export default {
  render({ model, el }) {
    const { law, weight } = model.get('state')
    const entropy = entropyBits(law), levels = law.length
    const dots = places(law, 60)

    figure(model, el, {
      name: 'dequantize',
      start: { log10: Math.log10(0.2), kind: KINDS[0], noise: 0 },
      controls: {
        log10: { label: 'width of the boxes', min: -3, max: 0, step: 0.02, show: v => (10 ** v).toPrecision(2) },
        kind: { label: 'noise', options: KINDS },
        noise: { label: 'width of noise', min: 0, max: 1, step: 0.01 },
      },
      setup(stage, set) {
        const left = plane({ x: [0, levels], y: [-0.45, TALLEST], width: 310, height: 250, title: 'density over the grey levels', ticks: 0 })
        const right = plane({ x: [-3, 0], y: [-7.5, 10], width: 310, height: 250, title: 'bits per pixel, for each width', ticks: 0 })
        board(stage, [left, right], 'Boxes on eight grey levels, and what pixels score')
        const rule = (p, a, b, more = {}) => {
          const path = make('path', { d: p.path([a, b]), fill: 'none', stroke: 'currentColor', ...more })
          p.under.append(path)
          return path
        }
        const word = (p, x, y, text, more = {}) => p.under.append(make('text', { x: p.px(x), y: p.py(y), ...more }, text))
        const boxes = law.map(() => make('rect', { fill: COLORS.model, 'fill-opacity': 0.75 }))
        const pixels = dots.map(row => row.map(() => make('circle', { r: 2.2 })))
        left.under.append(...boxes, ...pixels.flat())
        rule(left, [0, 0], [levels, 0])
        for (const v of range(levels + 1, 0, levels)) word(left, v, -0.45, v, { dy: 15, 'text-anchor': 'middle' })
        for (const v of [1, 2]) word(left, 0, v, v, { dx: -5, dy: 4, 'text-anchor': 'end' })
        const tall = make('text', { x: left.px(levels), y: left.py(1.35), 'text-anchor': 'end' })
        left.under.append(tall)
        const mark = (y, color, text) => {
          left.under.append(make('circle', { r: 4, cx: left.px(5.3), cy: left.py(y) - 4, fill: color }))
          word(left, 5.5, y, text)
        }
        mark(1.9, COLORS.model, 'model')
        mark(1.72, COLORS.data, 'pixels')
        mark(1.54, COLORS.other, 'beside a box')

        rule(right, [-3, -7.5], [0, -7.5])
        rule(right, [-3, -7.5], [-3, 10])
        for (const v of [0.001, 0.01, 0.1, 1]) word(right, Math.log10(v), -7.5, v, { dy: 15, 'text-anchor': v === 1 ? 'end' : 'middle' })
        for (const v of [-5, 0, 5]) word(right, -3, v, `${v}`.replace('-', '−'), { dx: -5, dy: 4, 'text-anchor': 'end' })
        const room = { x: right.px(-3), y: right.py(0), width: right.px(0) - right.px(-3), height: right.py(-7.5) - right.py(0) }
        right.under.prepend(make('rect', { ...room, fill: COLORS.floor, 'fill-opacity': 0.2 }))
        word(right, -0.1, -6.9, 'no code is shorter than 0 bits', { 'text-anchor': 'end' })
        rule(right, [-3, entropy], [0, entropy], { stroke: COLORS.latent, 'stroke-dasharray': '5 4', 'stroke-width': 1.5 })
        word(right, -2.95, entropy, `entropy ${fixed(entropy)}`, { dy: -5 })
        const curve = rule(right, [0, 0], [0, 0], { stroke: COLORS.model, 'stroke-width': 2 })
        const other = rule(right, [0, 0], [0, 0], { stroke: COLORS.floor, 'stroke-dasharray': '4 3' })
        const point = handle(right, {
          label: 'width of the boxes, logarithm', color: COLORS.model, free: 'x', step: 0.05,
          move: ([log10]) => set({ log10 }),
        })
        return ({ log10, kind, noise }) => {
          const width = 10 ** log10, learned = kind === KINDS[1]
          const place = (u, p) => learned ? ownPlace(u + 0.5, p, width, levels, weight) : u * noise
          law.forEach((p, i) => {
            const height = Math.min(boxDensity(p, width, levels, weight, 0), TALLEST)
            const wide = Math.max(left.px(width) - left.px(0), 0.8)
            const at = { x: left.px(i + 0.5) - wide / 2, y: left.py(height), width: wide, height: left.py(0) - left.py(height) }
            for (const [k, v] of Object.entries(at)) boxes[i].setAttribute(k, v)
            dots[i].forEach((u, j) => {
              const at = place(u, p)
              const off = Math.abs(at) > width / 2 + 1e-9
              pixels[i][j].setAttribute('cx', left.px(i + 0.5 + at))
              pixels[i][j].setAttribute('cy', left.py(-0.09 - 0.09 * (j % 4)))
              pixels[i][j].setAttribute('fill', off ? COLORS.other : COLORS.data)
            })
          })
          const highest = boxDensity(Math.max(...law), width, levels, weight, 0)
          tall.textContent = highest > TALLEST ? `the tallest reaches ${highest.toPrecision(2)}` : ''
          const uniform = right.path(range(151, -3, 0).map(v => [v, score(law, 10 ** v, noise, weight)]))
          const own = learnedScore(law, weight), level = right.path([[-3, own], [0, own]])
          curve.setAttribute('d', learned ? level : uniform)
          other.setAttribute('d', learned ? uniform : '')
          const bits = learned ? own : score(law, width, noise, weight)
          point([log10, bits])
          if (learned) return `Noise that follows the model's own law inside a level, and pays for its bits: pixels score ${fixed(bits)} bits at every width of the boxes, ${verdict(bits, entropy)}.`
          const missed = noise > width ? `${fixed(100 * (1 - width / noise), 0)} % of the noisy pixels fall beside the boxes. ` : ''
          return `${missed}Pixels score ${fixed(bits)} bits: ${verdict(bits, entropy)}.`
        }
      },
    })
  },
}
