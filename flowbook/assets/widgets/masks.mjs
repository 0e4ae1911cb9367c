// The masks of a MADE: drag the order of generation, and follow what one coordinate reaches.
// One finds: a coordinate reaches those that come after it in the order and no other, whatever the hidden units.

import { COLORS, board, figure, handle, make, plane } from './lib.mjs'
import { sized, uniform } from './pieces.mjs'

const DIM = 6
const ordinal = ['first', 'second', 'third', 'fourth', 'fifth', 'last']

// How many of the first coordinates each hidden unit may know: spread evenly as the book's
// `MADE` does, or drawn at random for a `draw` above 0.
export function degrees(dim, width, draw = 0, random = uniform(draw)) {
  const units = [...Array(width).keys()]
  if (!draw) return units.map(k => 1 + Math.floor(k * (dim - 1) / width))
  return units.map(() => 1 + Math.floor(random() * (dim - 1))).sort((a, b) => a - b)
}

// Rows are units that read, columns units that are read: inputs, hidden layers, outputs.
export function masks(dim, hidden) {
  const inputs = [...Array(dim).keys()].map(i => i + 1)
  const columns = [inputs, ...hidden]
  const inner = hidden.map((readers, k) => readers.map(a => columns[k].map(b => +(a >= b))))
  return [...inner, inputs.map(i => columns.at(-1).map(b => +(i > b)))]
}

// Numbers of paths from each input (column) to each output (row): the product of the masks.
export function paths(between) {
  const times = (a, b) => a.map(row => b[0].map((_, j) => row.reduce((s, v, k) => s + v * b[k][j], 0)))
  return between.reduce((whole, mask) => times(mask, whole))
}

// For each column of units, which of them an input reaches.
export function known(between, input) {
  const found = [between[0][0].map((_, j) => +(j === input))]
  for (const mask of between) found.push(mask.map(row => +row.some((v, k) => v && found.at(-1)[k])))
  return found
}

// The order with coordinate `i` at another place.
export function moved(order, i, place) {
  const others = order.filter(k => k !== i)
  return [...others.slice(0, place), i, ...others.slice(place)]
}

// What the read-out says.
export function reading(order, source, count) {
  const name = i => `x${i + 1}`
  const place = order.indexOf(source)
  const later = order.slice(place + 1)
  const reached = later.filter(i => count[order.indexOf(i)][place] > 0)
  const missed = later.filter(i => !reached.includes(i))
  const wrong = count.flatMap((row, i) => row.slice(i)).filter(n => n > 0).length
  const start = `${name(source)} is generated ${ordinal[place]}`
  const total = count.reduce((s, row) => s + row[place], 0)
  const what = later.length === 0 ? '; nothing may know it.'
    : missed.length === 0 ? ` and reaches all that come after it: ${reached.map(name).join(', ')}, along ${total} paths.`
    : ` and reaches ${reached.map(name).join(', ') || 'nothing'}; `
      + `${missed.map(name).join(', ')} may know it too, but no path leads there.`
  return `${start}${what} Paths to itself or to an earlier coordinate, for all six together: ${wrong}.`
}

// Cells of a matrix as one path: those of `rows` that are marked.
const cells = (p, rows, marked) => rows.flatMap((row, i) => row.map((_, j) => {
  const [w, h] = [p.px(1) - p.px(0) - 1, p.py(0) - p.py(1) - 1]
  return marked(i, j) ? `M${p.px(j)} ${p.py(rows.length - i)}h${w}v${h}h${-w}z` : ''
})).join('')

const word = (p, text, x, y, style = '', anchor = 'middle') =>
  make('text', { x, y: y + 4, 'text-anchor': anchor, style: `${style}; pointer-events: none` }, text)

// Columns of units, edges between them, and the followed ones in colour.
function drawGraph(p, order, hidden, between, reached) {
  const columns = [order, ...hidden, order]
  const height = (units, k) => DIM + 0.5 - (k + 0.5) * DIM / units.length
  const at = (c, k) => [p.px(c), p.py(height(columns[c], k))]
  const edges = hot => between.flatMap((mask, c) => mask.flatMap((row, i) => row.map((v, j) =>
    v && Boolean(reached[c][j]) === hot ? `M${at(c, j)}L${at(c + 1, i)}` : ''))).join('')
  const units = columns.slice(1).flatMap((column, c) => column.flatMap((unit, k) => {
    const [cx, cy] = at(c + 1, k), last = c + 1 === between.length
    const fill = reached[c + 1][k] ? COLORS.data : last ? COLORS.latent : COLORS.floor
    const r = last ? 11 : Math.min(9, 90 / column.length)
    return [make('circle', { cx, cy, r, fill }), word(p, last ? `x${unit + 1}` : unit, cx, cy, `fill: white; font-size: ${last ? 12 : 11}px`)]
  }))
  const heads = ['inputs ↕', 'hidden units, by degree', 'outputs'].map((text, c) => word(p, text, p.px(1.5 * c), 10))
  p.under.replaceChildren(
    make('path', { d: edges(false), stroke: COLORS.floor, 'stroke-opacity': 0.45, fill: 'none' }),
    make('path', { d: edges(true), stroke: COLORS.data, 'stroke-width': 1.8, fill: 'none' }), ...units, ...heads)
}

// A matrix with the followed part in colour, and what stands at its sides and in its cells.
function drawMatrix(p, rows, hot, { sides, numbers } = {}) {
  const part = (marked, fill, opacity = 1) => make('path', { d: cells(p, rows, marked), fill, 'fill-opacity': opacity })
  const names = (sides ?? []).flatMap((i, k) => [
    word(p, `x${i + 1}`, p.px(0) - 6, p.py(rows.length - k - 0.5), '', 'end'),
    word(p, `x${i + 1}`, p.px(k + 0.5), p.py(rows.length) - 10)])
  const counts = numbers ? rows.flatMap((row, i) => row.map((n, j) =>
    n ? word(p, n, p.px(j + 0.5), p.py(rows.length - i - 0.5), 'fill: white') : '')) : []
  p.under.replaceChildren(
    part(() => true, COLORS.floor, 0.15),
    part((i, j) => rows[i][j] && !hot(i, j), COLORS.latent),
    part((i, j) => rows[i][j] && hot(i, j), COLORS.data), ...names, ...counts)
}

export default {
  render({ model, el }) {
    const { order, width } = model.get('state')
    figure(model, el, {
      name: 'masks',
      start: { order, width, draw: 0, follow: `x${order[2] + 1}` },
      controls: {
        follow: { label: 'follow', options: [...Array(DIM).keys()].map(i => `x${i + 1}`) },
        width: { label: 'width', min: 1, max: 12, step: 1, show: n => `${n} units` },
        draw: { label: 'degrees', min: 0, max: 40, step: 1, show: n => n ? `draw ${n}` : 'spread evenly' },
      },
      setup(stage, set) {
        const graph = plane({ x: [-0.1, 3.2], y: [0.5, DIM + 0.5], width: 385, height: 262, title: ' ', ticks: 0 })
        const product = plane({ x: [0, DIM], y: [0, DIM + 0.8], width: 225, height: 250, title: 'paths from column to row', ticks: 0 })
        sized(board(stage, [graph, product], 'A masked network, and its paths from inputs to outputs'), [385, 225])
        const titles = ['inputs to hidden', 'hidden to hidden', 'hidden to outputs']
        const row = make('div')
        let small = []
        stage.append(row)

        let now
        const handles = [...Array(DIM).keys()].map(i => {
          const show = handle(graph, {
            label: `place of x${i + 1} in the order`, free: 'y', step: 1, r: 11, color: COLORS.latent,
            move: ([, y]) => set({ order: moved(now.order, i, DIM - Math.round(y)), follow: `x${i + 1}` }),
          })
          const dot = graph.top.lastElementChild
          const name = word(graph, `x${i + 1}`, 0, 0, 'fill: white')
          graph.top.append(name)
          dot.addEventListener('pointerdown', () => set({ follow: `x${i + 1}` }))
          return (rank, hot) => {
            show([0, DIM - rank])
            dot.setAttribute('aria-valuetext', `${rank + 1} of ${DIM}`)
            dot.setAttribute('fill', hot ? COLORS.data : COLORS.latent)
            name.setAttribute('x', graph.px(0))
            name.setAttribute('y', graph.py(DIM - rank) + 4)
          }
        })
        return values => {
          now = values
          const { order, width, draw } = values
          const random = uniform(draw)
          const hidden = [0, 1].map(() => degrees(DIM, width, draw, random))
          const between = masks(DIM, hidden)
          const source = +values.follow.slice(1) - 1, input = order.indexOf(source)
          const reached = known(between, input), count = paths(between)
          drawGraph(graph, order, hidden, between, reached)
          drawMatrix(product, count, (_, j) => j === input, { sides: order, numbers: true })
          if (small[0]?.x[1] !== DIM || small[1].x[1] !== width) {
            small = between.map((mask, k) => plane({ x: [0, mask[0].length], y: [0, mask.length], width: 175, height: 120, title: titles[k], ticks: 0 }))
            row.replaceChildren()
            sized(board(row, small, 'The three masks'), [140, 140, 140])
          }
          small.forEach((p, k) => drawMatrix(p, between[k], (_, j) => reached[k][j]))
          handles.forEach((show, i) => show(order.indexOf(i), i === source))
          return reading(order, source, count)
        }
      },
    })
  },
}
