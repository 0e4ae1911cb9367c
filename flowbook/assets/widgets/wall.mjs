// Scrub through the training of three flows, and see which of them pass the wall.
// One finds: without scales the cost stops at the least for constant area; two learned scales go through the wall.

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

const PAINT = [COLORS.other, COLORS.model, COLORS.latent]

export default {
  render({ model, el }) {
    const { runs, steps, window: frame, data, half, lines } = model.get('state')
    const names = runs.map(run => run.name), last = steps.length - 1
    const films = runs.map(run => unpack(run, frame, half.length))
    const wall = lines.find(([name]) => name === 'wall')[1]
    const target = areaOf(half)
    const outside = ([a, b]) => a <= frame[0] || a >= frame[1] || b <= frame[2] || b >= frame[3]
    const root = k => Math.sqrt(steps[k])
    const nearest = v => steps.reduce((best, _, k) => Math.abs(root(k) - v) < Math.abs(root(best) - v) ? k : best, 0)

    figure(model, el, {
      name: 'wall',
      start: { flow: names[0], k: last },
      controls: {
        flow: { label: 'flow', options: names },
        k: { label: 'step', min: 0, max: last, step: 1, show: k => `${steps[Math.round(k)]}` },
        go: { label: 'Train', press: set => play(set, 'k', 0, last, 5) },
      },
      setup(stage, set) {
        const costs = runs.flatMap(run => run.costs), low = Math.min(...costs, ...lines.map(([, v]) => v))
        const left = plane({ x: [0, 1.04 * root(last)], y: [low - 0.15, Math.max(...costs)], width: 320, height: 260, title: 'NLL of fresh points, nats, by step', ticks: 0 })
        const right = plane({ x: frame.slice(0, 2), y: frame.slice(2), width: 300, height: 260, title: 'data (orange) and model' })
        board(stage, [left, right], 'The cost of a flow while it trains, and what it makes of noise')
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
            + `${fixed(areaOf(shot.half) / target, 1)} times the area of that of the data.`
        }
      },
    })
  },
}
