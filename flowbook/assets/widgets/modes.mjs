// Scrub through the training of two games and a flow, and count the clusters that they reach.
// One finds: the loss of D is near log 4 with eight clusters or with one; the cost of a flow tells them apart.

import { COLORS, board, figure, fixed, handle, make, plane, play } from './lib.mjs'

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))
const parts = (row, n) => Array.from({ length: row.length / n }, (_, k) => row.slice(k * n, (k + 1) * n))

// Base64 of bytes → frames of `n` points in the square −half…half.
export function tracks(text, n, half) {
  const v = Array.from(bytesOf(text), b => -half + 2 * half * b / 255)
  return parts(parts(v, 2), n)
}

// How many points are nearest to each mode and within the radius; the modes that have the
// share of all points that a hit needs, and the share of points near any.
export function modesHit(points, centres, radius, share) {
  const counts = centres.map(() => 0)
  for (const [a, b] of points) {
    const far = centres.map(([x, y]) => Math.hypot(a - x, b - y))
    const least = Math.min(...far)
    if (least <= radius) counts[far.indexOf(least)] += 1
  }
  const hits = counts.map(c => c >= share * points.length)
  const near = counts.reduce((sum, c) => sum + c, 0) / points.length
  return { hits, hit: hits.filter(Boolean).length, near }
}

const PAINT = [COLORS.other, COLORS.model, COLORS.latent]
const GROUNDS = ['clusters', 'D, or p(x)']

// One frame of a square of bytes as a picture: a colour for what is above the middle and one
// for what is below, the further the more of it.
function picture(frame, middle, [above, under]) {
  const side = Math.sqrt(frame.length)
  const canvas = make('canvas', { width: side, height: side })
  const ink = canvas.getContext('2d'), image = ink.createImageData(side, side)
  const [high, low] = [above, under].map(color => [1, 3, 5].map(k => parseInt(color.slice(k, k + 2), 16)))
  frame.forEach((v, i) => {
    const off = (v / 255 - middle) / (middle ? 0.25 : 1)
    image.data.set([...(off > 0 ? high : low), 160 * Math.min(Math.abs(off), 1)], 4 * i)
  })
  ink.putImageData(image, 0, 0)
  return canvas.toDataURL()
}

export default {
  render({ model, el }) {
    const { runs, dots: n, half, centres, radius, share, every, lines } = model.get('state')
    const names = runs.map(run => run.name), last = runs[0].costs.length - 1
    const films = runs.map(run => tracks(run.places, n, half))
    const counted = films.map(film => film.map(points => modesHit(points, centres, radius, share)))
    const grounds = runs.map(run => parts(bytesOf(run.ground), bytesOf(run.ground).length / (last + 1)))
    const outside = v => v.some(c => Math.abs(c) >= half)

    figure(model, el, {
      name: 'modes',
      start: { run: names[0], k: last, ground: GROUNDS[0] },
      controls: {
        run: { label: 'model', options: names },
        k: { label: 'round', min: 0, max: last, step: 1, show: k => `${every * Math.round(k)}` },
        ground: { label: 'ground', options: GROUNDS },
        go: { label: 'Train', press: set => play(set, 'k', 0, last, 6) },
      },
      setup(stage, set) {
        const end = every * last
        const square = plane({ x: [-half, half], y: [-half, half], width: 300, height: 300, title: 'samples over the clusters' })
        const axis = { x: [0, end], width: 300, height: 150 }
        const top = plane({ ...axis, y: [0, centres.length + 0.5], ticks: 5, across: 4, title: `clusters hit, of ${centres.length}` })
        const costs = runs.flatMap(run => run.costs), low = Math.min(...costs, ...lines.map(l => l.value))
        const below = plane({ ...axis, y: [low - 0.25, Math.max(...costs)], title: 'loss of D, or cost of the flow, nats' })
        below.g.setAttribute('transform', 'translate(0 150)')
        board(stage, [square, { g: make('g', {}, top.g, below.g), width: 300, height: 300 }],
          'Samples at one round of training, and clusters and losses at all')
        const across = { x: square.px(-half), y: square.py(half), width: square.px(half) - square.px(-half), height: square.py(-half) - square.py(half) }
        const map = make('image', { ...across, preserveAspectRatio: 'none' })
        const size = radius / (2 * half) * across.width
        const disks = centres.map(([a, b]) => make('circle', { cx: square.px(a), cy: square.py(b), r: size, fill: COLORS.data, stroke: COLORS.data }))
        const dots = films[0][0].map(() => make('circle', { r: 1.8, 'fill-opacity': 0.8 }))
        square.under.append(map, ...disks, ...dots)

        const curve = (p, values, i) => {
          const e = make('path', { fill: 'none', stroke: PAINT[i], d: p.path(values.map((v, k) => [every * k, v])) })
          p.under.append(e)
          return e
        }
        const curves = runs.map((run, i) => [curve(top, counted[i].map(c => c.hit), i), curve(below, run.costs, i)])
        const lowest = Math.min(...lines.map(l => l.value))
        for (const { name, value } of lines)
          below.under.append(
            make('path', { d: below.path([[0, value], [end, value]]), stroke: 'currentColor', 'stroke-dasharray': '2 3' }),
            make('text', { x: below.px(0.95 * end), y: below.py(value) + (value === lowest ? 13 : -5), 'text-anchor': 'end' }, `${name} ${fixed(value)}`))
        const near = ([v]) => set({ k: Math.round(v / every) })
        const options = { free: 'x', color: COLORS.floor, step: every, move: near, r: 6 }
        const points = [handle(top, { label: 'round, at the clusters', ...options }), handle(below, { label: 'round, at the loss', ...options })]

        return values => {
          const k = Math.round(values.k), i = names.indexOf(values.run)
          const run = runs[i], here = counted[i][k], plain = values.ground === GROUNDS[0]
          dots.forEach((e, j) => {
            const [a, b] = films[i][k][j]
            e.setAttribute('cx', square.px(a))
            e.setAttribute('cy', square.py(b))
            e.setAttribute('fill', plain ? PAINT[i] : 'currentColor')
          })
          disks.forEach((e, j) => {
            e.setAttribute('fill-opacity', plain && here.hits[j] ? 0.35 : 0)
            e.setAttribute('stroke-opacity', plain ? 0.8 : 0.4)
            e.setAttribute('stroke-dasharray', here.hits[j] ? 'none' : '3 3')
          })
          map.setAttribute('visibility', plain ? 'hidden' : 'visible')
          if (!plain) map.setAttribute('href', picture(grounds[i][k], run.middle, [run.middle ? COLORS.data : PAINT[i], PAINT[i]]))
          curves.forEach((pair, j) => pair.forEach(e => {
            e.setAttribute('stroke-width', i === j ? 2.5 : 1.2)
            e.setAttribute('stroke-opacity', i === j ? 1 : 0.5)
          }))
          points[0]([every * k, here.hit])
          points[1]([every * k, run.costs[k]])
          const lost = films[i][k].filter(outside).length / n
          const beyond = lost ? `, ${fixed(100 * lost, 0)} % outside the picture` : ''
          const ground = plain ? '' : run.middle ? ' The ground is orange where D says “data”.' : ' The ground is the density.'
          const line = lines.find(l => l.of === run.says)
          return `${run.name}, round ${every * k}: ${here.hit} of ${centres.length} clusters hit, ${fixed(100 * here.near, 0)} % of the samples near one${beyond}. `
            + `${run.says} ${fixed(run.costs[k])} nats; ${line.name} is ${fixed(line.value)}.${ground}`
        }
      },
    })
  },
}
