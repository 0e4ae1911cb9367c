// Draw points, and watch a small flow learn their density; the gradient is worked out by hand.
// One finds: a ring is learned with a cut or a thin bridge, and a faint middle: no map that can be undone empties it.

import { COLORS, board, figure, fixed, make, normals, plane } from './lib.mjs'

const LAYERS = 8, HIDDEN = 16, BOUND = 2
const SIZE = 4 * HIDDEN + 2 // numbers of a layer: what is read, its bias, two rows, two biases
const LOG_2PI = Math.log(2 * Math.PI)

// The numbers of all networks; they start at zero output, and the flow as the identity.
export function begin(seed) {
  const p = new Float64Array(LAYERS * SIZE)
  const noise = normals(seed, 2 * HIDDEN * LAYERS)
  for (let k = 0; k < LAYERS; k++) p.set(noise.subarray(2 * HIDDEN * k, 2 * HIDDEN * (k + 1)), k * SIZE)
  return p
}

// What the network of layer k says to the coordinate that it reads.
function ask(p, k, read) {
  const at = k * SIZE, h = new Float64Array(HIDDEN)
  let raw = p[at + 4 * HIDDEN], t = p[at + 4 * HIDDEN + 1]
  for (let i = 0; i < HIDDEN; i++) {
    h[i] = Math.tanh(p[at + i] * read + p[at + HIDDEN + i])
    raw += p[at + 2 * HIDDEN + i] * h[i]
    t += p[at + 3 * HIDDEN + i] * h[i]
  }
  const bend = Math.tanh(raw / BOUND)
  return { h, bend, log_s: BOUND * bend, t }
}

// From noise to data: layer 0 first. Each layer moves one coordinate and reads the other.
export function toData(p, [a, b]) {
  const v = [a, b]
  for (let k = 0; k < LAYERS; k++) {
    const moves = k % 2
    const { log_s, t } = ask(p, k, v[1 - moves])
    v[moves] = v[moves] * Math.exp(log_s) + t
  }
  return v
}

// log p(x) in nats; with `gradient`, add to it the derivative of −weight · log p(x).
export function logProb(p, x, gradient = null, weight = 1) {
  const v = [...x], steps = []
  let total = 0
  for (let k = LAYERS - 1; k >= 0; k--) {
    const moves = k % 2
    const said = ask(p, k, v[1 - moves])
    v[moves] = (v[moves] - said.t) * Math.exp(-said.log_s)
    total -= said.log_s
    if (gradient) steps.push({ k, moves, u: v[moves], read: v[1 - moves], ...said })
  }
  if (gradient) {
    const g = [weight * v[0], weight * v[1]]
    while (steps.length) back(p, steps.pop(), g, gradient, weight)
  }
  return total - 0.5 * (v[0] ** 2 + v[1] ** 2) - LOG_2PI
}

// One layer backwards: `g` holds the derivatives by its output z, and then by its input x.
function back(p, { k, moves, u, read, h, bend, log_s, t }, g, gradient, weight) {
  const at = k * SIZE, shrink = Math.exp(-log_s)
  const g_t = -g[moves] * shrink
  const g_raw = (weight - g[moves] * u) * (1 - bend * bend)
  gradient[at + 4 * HIDDEN] += g_raw
  gradient[at + 4 * HIDDEN + 1] += g_t
  let g_read = 0
  for (let i = 0; i < HIDDEN; i++) {
    gradient[at + 2 * HIDDEN + i] += g_raw * h[i]
    gradient[at + 3 * HIDDEN + i] += g_t * h[i]
    const g_h = g_raw * p[at + 2 * HIDDEN + i] + g_t * p[at + 3 * HIDDEN + i]
    const g_in = g_h * (1 - h[i] * h[i])
    gradient[at + i] += g_in * read
    gradient[at + HIDDEN + i] += g_in
    g_read += g_in * p[at + i]
  }
  g[moves] *= shrink
  g[1 - moves] += g_read
}

// Mean of −log p over points, and its gradient.
export function loss(p, points) {
  const gradient = new Float64Array(p.length)
  let sum = 0
  for (const x of points) sum -= logProb(p, x, gradient, 1 / points.length)
  return { value: sum / points.length, gradient }
}

// One step of Adam at `rate`; `memory` holds the running means.
export function step(p, gradient, memory, rate) {
  memory.n = (memory.n ?? 0) + 1
  memory.m ??= new Float64Array(p.length)
  memory.v ??= new Float64Array(p.length)
  const { m, v, n } = memory
  for (let i = 0; i < p.length; i++) {
    m[i] = 0.9 * m[i] + 0.1 * gradient[i]
    v[i] = 0.999 * v[i] + 0.001 * gradient[i] ** 2
    p[i] -= rate * m[i] / (1 - 0.9 ** n) / (Math.sqrt(v[i] / (1 - 0.999 ** n)) + 1e-8)
  }
}

// Ready-made points, each coordinate around 0 with a spread of about 1.
export function ready(name, n, seed = 1) {
  const e = normals(seed, 3 * n)
  return Array.from({ length: n }, (_, i) => {
    const [a, b, c] = e.subarray(3 * i, 3 * i + 3)
    const turn = 2 * Math.PI * i / n
    if (name === 'ring') return [1.5 * Math.cos(turn) + 0.12 * a, 1.5 * Math.sin(turn) + 0.12 * b]
    if (name === 'cross') return i % 2 ? [1.2 * c, 0.15 * a] : [0.15 * a, 1.2 * c]
    const upper = i % 2, along = Math.PI * i / n
    return [1.2 * (upper ? 0.5 : -0.5) + 1.1 * Math.cos(along) * (upper ? -1 : 1) + 0.1 * a,
      (upper ? -1 : 1) * (1.1 * Math.sin(along) - 0.3) + 0.1 * b]
  })
}

const REACH = 3, CELLS = 40, BATCH = 128
const OWN = 'your own'

export default {
  render({ model, el }) {
    let points, held, p, memory, curve, turning = false

    function restart(data) {
      const all = data === OWN ? [] : ready(data, 600)
      points = all.filter((_, i) => i % 5)
      held = all.filter((_, i) => i % 5 === 0)
      untrain()
    }
    function untrain() {
      p = begin(2)
      memory = {}
      curve = []
    }

    // Some steps, as many as fit between two pictures; the gradient of a batch in turn.
    function train(rate) {
      const until = performance.now() + 12
      do {
        const n = memory.n ?? 0
        const batch = points.length <= BATCH ? points : points.filter((_, i) => (i * 7 + n * 13) % points.length < BATCH)
        const { value, gradient } = loss(p, batch)
        step(p, gradient, memory, rate)
        if (n % 10 === 0) curve.push([n, value, held.length ? -mean(held.map(x => logProb(p, x))) : value])
      } while (performance.now() < until)
    }

    const shown = figure(model, el, {
      name: 'fit',
      start: { data: 'ring', rate: 0.003 },
      controls: {
        data: { label: 'points', options: ['ring', 'moons', 'cross', OWN] },
        rate: { label: 'learning rate', min: 0.001, max: 0.03, step: 0.001, show: x => fixed(x, 3) },
        go: { label: 'Train or pause', press: () => { turning = !turning; if (turning) turn() } },
        again: { label: 'Untrain', press: set => { untrain(); set({}) } },
      },
      setup(stage, set, values) {
        let data
        const room = plane({ x: [-REACH, REACH], y: [-REACH, REACH], width: 300, height: 300, title: 'draw here' })
        const losses = plane({ x: [0, 1], y: [1, 3.5], width: 300, height: 300, title: 'nats for a point, step by step', across: 0 })
        board(stage, [room, losses], 'Points with the density of the flow, and the loss')
        const ground = make('image', { width: room.px(REACH) - room.px(-REACH), height: room.py(-REACH) - room.py(REACH),
          x: room.px(-REACH), y: room.py(REACH), preserveAspectRatio: 'none', style: 'image-rendering: pixelated' })
        const dots = make('path', { stroke: COLORS.data, 'stroke-width': 3, 'stroke-linecap': 'round' })
        const area = make('rect', { x: room.px(-REACH), y: room.py(REACH), width: ground.getAttribute('width'), height: ground.getAttribute('height'),
          fill: 'transparent', style: 'cursor: crosshair; touch-action: none' })
        room.under.append(ground, dots, area)
        const [line, fresh] = ['floor', 'model'].map(c => make('path', { fill: 'none', stroke: COLORS[c], 'stroke-width': 1.5 }))
        losses.under.append(line, fresh)
        pen(area, room, x => {
          if (data !== OWN) set({ data: OWN })
          const kept = (points.length + held.length) % 5 ? points : held
          kept.push(x)
          set({})
        })
        return values => {
          if (values.data !== data) {
            data = values.data
            turning = false
            restart(data)
          }
          ground.setAttribute('href', shade(p))
          dots.setAttribute('d', [...points, ...held].map(([a, b]) => `M${room.px(a).toFixed(1)} ${room.py(b).toFixed(1)}h0`).join(''))
          const far = Math.max(curve.at(-1)?.[0] ?? 0, 1)
          const place = column => losses.path(curve.map(row => [row[0] / far, Math.min(Math.max(row[column], 1), 3.5)]))
          line.setAttribute('d', place(1))
          fresh.setAttribute('d', place(2))
          return report(points, held, curve, memory.n ?? 0)
        }
      },
    })

    function turn() {
      if (!turning || points.length < 5 || !document.body.contains(shown.root)) {
        turning = false
        return
      }
      train(shown.values.rate)
      shown.set({})
      requestAnimationFrame(turn)
    }
  },
}

const mean = values => values.reduce((a, b) => a + b, 0) / values.length

// What the read-out says.
function report(points, held, curve, n) {
  const all = points.length + held.length
  if (all < 5) return 'No points yet: draw some with the pointer.'
  if (!n) return `${all} points; the shaded ground is the density of the flow, a round cloud before training.`
  const [, now, fresh] = curve.at(-1)
  return `${n} steps: ${fixed(now)} nats for a point that is trained on, ${fixed(fresh)} for one of ${held.length} that are held out (green).`
}

// A pointer that draws: a point wherever it has moved on a little.
function pen(area, room, add) {
  let last = null
  const at = event => {
    const box = area.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width * 2 * REACH - REACH, REACH - (event.clientY - box.top) / box.height * 2 * REACH]
  }
  area.addEventListener('pointerdown', e => { area.setPointerCapture(e.pointerId); last = at(e); add(last) })
  area.addEventListener('pointermove', e => {
    if (!area.hasPointerCapture(e.pointerId)) return
    const x = at(e)
    if (Math.hypot(x[0] - last[0], x[1] - last[1]) < 0.08) return
    last = x
    add(x)
  })
}

// The density as a picture: the darker, the denser.
function shade(p) {
  const canvas = make('canvas', { width: CELLS, height: CELLS })
  const image = new ImageData(CELLS, CELLS)
  for (let i = 0; i < CELLS; i++)
    for (let j = 0; j < CELLS; j++) {
      const x = [(j + 0.5) / CELLS * 2 * REACH - REACH, REACH - (i + 0.5) / CELLS * 2 * REACH]
      const alpha = 255 * (1 - Math.exp(-4 * Math.exp(logProb(p, x))))
      image.data.set([0, 114, 178, alpha], 4 * (i * CELLS + j))
    }
  canvas.getContext('2d').putImageData(image, 0, 0)
  return canvas.toDataURL()
}
