// Scrub through the training of three flows, and see which pass the wall; then change the size of the data.
// One finds: without scales the cost stops at the least for constant area; at one size of the data it is the entropy.

import { COLORS, board, figure, fixed, handle, make, plane, play } from './lib.mjs'

// Base64 of little-endian uint16 → points of a window `[x0, x1, y0, y1]`, in equal parts.
export function frames(text, [x0, x1, y0, y1], size) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0))
  const raw = new Uint16Array(bytes.buffer)
  const all = []
  for (let i = 0; i < raw.length; i += 2)
    all.push([x0 + raw[i] / 65535 * (x1 - x0), y0 + raw[i + 1] / 65535 * (y1 - y0)])
  return Array.from({ length: all.length / size }, (_, k) => all.slice(k * size, (k + 1) * size))
}

// The area that a closed curve of points encloses.
export function areaOf(curve) {
  const parts = curve.map(([a, b], i) => {
    const [c, d] = curve[(i + 1) % curve.length]
    return (a * d - b * c) / 2
  })
  return Math.abs(parts.reduce((sum, v) => sum + v, 0))
}

// The record of one run, unpacked: for each frame a curve around half of the mass, and points.
export function unpack(run, window, n) {
  return frames(run.places, window, n + run.dots).map(all => ({ half: all.slice(0, n), dots: all.slice(n) }))
}

// The least cost at constant area, and the entropy, of data that are `size` times as large.
export const leastAt = (size, { wall, spread }) => wall + spread * size ** 2
export const entropyAt = (size, { entropy }) => entropy + 2 * Math.log(size)

// What the best flow of constant area makes of the curve around half of the base's mass,
// when `half` is that of the data at size 1.
export function bestAt(size, half, spread) {
  const wide = spread ** -0.5
  return half.map(([a, b]) => {
    const up = wide * b
    return [wide * (a - 10 * b * b) + 10 / size * up * up, up]
  })
}

const PAINT = [COLORS.other, COLORS.model, COLORS.latent]

const LEAST = -1, MOST = 1.7  // of the size, as a power of 2

export default {
  render({ model, el }) {
    const { runs, steps, window: frame, data, half, lines, spread, sizes } = model.get('state')
    const names = runs.map(run => run.name), last = steps.length - 1
    const films = runs.map(run => unpack(run, frame, half.length))
    const level = name => lines.find(([n]) => n === name)[1]
    const wall = level('wall'), law = { wall, spread, entropy: level('entropy') }
    const target = areaOf(half)
    const outside = ([a, b]) => a <= frame[0] || a >= frame[1] || b <= frame[2] || b >= frame[3]
    const root = k => Math.sqrt(steps[k])
    const nearest = v => steps.reduce((best, _, k) => Math.abs(root(k) - v) < Math.abs(root(best) - v) ? k : best, 0)

    figure(model, el, {
      name: 'wall',
      start: { flow: names[0], k: last, size: 0 },
      controls: {
        flow: { label: 'flow', options: names },
        k: { label: 'step', min: 0, max: last, step: 1, show: k => `${steps[Math.round(k)]}` },
        size: { label: 'size of the data', min: LEAST, max: MOST, step: 0.02, show: v => fixed(2 ** v) },
        go: { label: 'Train', press: set => play(set, 'k', 0, last, 5) },
      },
      setup(stage, set) {
        const costs = runs.flatMap(run => run.costs), low = Math.min(...costs, ...lines.map(([, v]) => v))
        const left = plane({ x: [0, 1.04 * root(last)], y: [low - 0.15, Math.max(...costs)], width: 320, height: 220, title: 'NLL of fresh points, nats, by step', ticks: 0 })
        const right = plane({ x: frame.slice(0, 2), y: frame.slice(2), width: 300, height: 220, title: 'data (orange) and model' })
        const under = plane({ x: [LEAST, MOST], y: [entropyAt(2 ** LEAST, law) - 0.1, leastAt(2 ** MOST, law)], width: 320, height: 170, title: 'least NLL, by size of the data', ticks: 0 })
        const fits = plane({ x: [-0.25, 1.2], y: [-0.45, 0.45], width: 300, height: 170, title: 'data of this size, best at constant area', ticks: 3 })
        for (const p of [under, fits]) p.g.setAttribute('transform', 'translate(0 220)')
        board(stage, [{ g: make('g', {}, left.g, under.g), width: 320, height: 390 }, { g: make('g', {}, right.g, fits.g), width: 300, height: 390 }],
          'The cost of a flow while it trains, the least cost for data of other sizes, and what a flow makes of noise')
        const path = (p, color, more = {}) => {
          const e = make('path', { fill: 'none', stroke: color, ...more })
          p.under.append(e)
          return e
        }
        const word = (p, x, y, text, more = {}) => p.under.append(make('text', { x: p.px(x), y: p.py(y), ...more }, text))
        const bottom = left.y[0], end = root(last)
        path(left, 'currentColor').setAttribute('d', left.path([[0, left.y[1]], [0, bottom], [end, bottom]]))
        for (const s of [0, 25, 100, 225, 400, 600].filter(s => s <= steps[last]))
          word(left, Math.sqrt(s), bottom, s, { dy: 16, 'text-anchor': 'middle' })
        for (const v of [-3, -2, -1].filter(v => v > bottom && v < left.y[1])) word(left, 0, v, `−${-v}`, { dx: -5, dy: 4, 'text-anchor': 'end' })
        for (const [name, v] of lines) {
          path(left, 'currentColor', { 'stroke-dasharray': '2 3' }).setAttribute('d', left.path([[0, v], [end, v]]))
          word(left, end, v, `${name} ${fixed(v)}`, { dy: 13, 'text-anchor': 'end' })
        }
        const curves = runs.map((run, i) => {
          const e = path(left, PAINT[i], { 'stroke-width': 2 })
          e.setAttribute('d', left.path(run.costs.map((c, k) => [root(k), c])))
          return e
        })
        const point = handle(left, { label: 'step of training', free: 'x', color: COLORS.floor, step: 1,
          move: ([v]) => set({ k: near(v) }) })

        path(under, 'currentColor').setAttribute('d', under.path([[LEAST, under.y[1]], [LEAST, under.y[0]], [MOST, under.y[0]]]))
        for (const v of [0.5, 1, 2, 3]) word(under, Math.log2(v), under.y[0], v, { dy: 16, 'text-anchor': 'middle' })
        for (const v of [-4, -3, -2, -1]) word(under, LEAST, v, `−${-v}`, { dx: -5, dy: 4, 'text-anchor': 'end' })
        const sized = f => Array.from({ length: 91 }, (_, i) => LEAST + (MOST - LEAST) * i / 90).map(v => [v, f(2 ** v, law)])
        const inkOf = { 'constant area': [leastAt, PAINT[0], {}], wall: [() => wall, 'currentColor', { 'stroke-dasharray': '2 3' }], entropy: [entropyAt, COLORS.data, {}] }
        for (const [f, color, more] of Object.values(inkOf)) path(under, color, { 'stroke-width': 2, ...more }).setAttribute('d', under.path(sized(f)))
        word(under, -0.9, leastAt(2 ** -0.9, law), 'constant area', { dy: -6 })
        word(under, MOST, wall, 'wall', { dy: 13, 'text-anchor': 'end' })
        word(under, -0.3, entropyAt(2 ** -0.3, law), 'entropy', { dx: 10, dy: 12 })
        for (const { size, cost } of sizes)
          under.under.append(make('circle', { cx: under.px(Math.log2(size)), cy: under.py(cost), r: 3.5, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5 }))
        const sizer = handle(under, { label: 'size of the data, as a power of 2', free: 'x', color: COLORS.floor, step: 0.1, r: 6,
          move: ([v]) => set({ size: v }) })

        const clip = make('clipPath', { id: 'wall-fits' }, make('path', { d: fits.path([[-0.25, -0.45], [1.2, -0.45], [1.2, 0.45], [-0.25, 0.45]]) }))
        fits.under.append(clip)
        const grown = path(fits, COLORS.data, { 'stroke-width': 2, fill: COLORS.data, 'fill-opacity': 0.3, 'clip-path': 'url(#wall-fits)' })
        const bent = path(fits, PAINT[0], { 'stroke-width': 2, 'clip-path': 'url(#wall-fits)' })

        for (const [a, b] of data) right.under.append(make('circle', { cx: right.px(a), cy: right.py(b), r: 1.5, fill: COLORS.data, 'fill-opacity': 0.6 }))
        const dots = films[0][0].dots.map(() => make('circle', { r: 1.8, 'fill-opacity': 0.7 }))
        right.under.append(...dots)
        const closed = curve => right.path([...curve, curve[0]])
        path(right, COLORS.data, { 'stroke-width': 2, fill: COLORS.data, 'fill-opacity': 0.3 }).setAttribute('d', closed(half))
        const ring = path(right, 'currentColor', { 'stroke-width': 2, 'fill-opacity': 0.12 })

        let now
        const near = v => {
          const k = Math.round(now.k), found = nearest(v)
          return found === k ? Math.min(Math.max(k + Math.sign(v - root(k)), 0), last) : found
        }
        return values => {
          now = values
          const k = Math.round(values.k), i = names.indexOf(values.flow)
          const run = runs[i], shot = films[i][k]
          curves.forEach((e, j) => e.setAttribute('stroke-opacity', i === j ? 1 : 0.4))
          point([root(k), run.costs[k]])
          const size = 2 ** values.size, least = leastAt(size, law), floor = entropyAt(size, law)
          sizer([values.size, least])
          const curve = points => fits.path([...points, points[0]])
          grown.setAttribute('d', curve(half.map(([a, b]) => [size * a, size * b])))
          bent.setAttribute('d', curve(bestAt(size, half, spread)))
          ring.setAttribute('d', closed(shot.half))
          for (const side of ['stroke', 'fill']) ring.setAttribute(side, PAINT[i])
          dots.forEach((e, j) => {
            e.setAttribute('cx', right.px(shot.dots[j][0]))
            e.setAttribute('cy', right.py(shot.dots[j][1]))
            e.setAttribute('fill', PAINT[i])
            e.setAttribute('visibility', outside(shot.dots[j]) ? 'hidden' : 'visible')
          })
          const past = run.costs[k] < wall ? 'below the wall' : 'above the wall'
          return `${run.name} at step ${steps[k]}: ${fixed(run.costs[k])} nats, ${past}. The curve around half of the model's mass encloses `
            + `${fixed(areaOf(shot.half) / target, 1)} times the area of that of the data. `
            + `At ${fixed(size)} times the size of the data, constant area costs at least ${fixed(least)} nats, ${fixed(least - floor)} above the entropy.`
        }
      },
    })
  },
}
