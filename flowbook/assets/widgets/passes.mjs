// MAF and IAF at the same task, call by call of their network: which cells are known.
// One finds: one call is enough if the network reads a row that is known; otherwise it takes a call for each cell.

import { COLORS, board, figure, make, plane, play } from './lib.mjs'
import { ends, sliders } from './pieces.mjs'

const MODELS = ['MAF', 'IAF']
const TASKS = ['sample', 'score a given point', 'sample and score']
const SCORE = TASKS[1]

// Calls of the network by the textbook loop: one if the row that it reads is given.
export const needed = (kind, task, dim) => ((kind === 'MAF') === (task === SCORE) ? 1 : dim)

// How many cells of each row are known after some calls, and which call was the last.
export function after(kind, task, dim, calls) {
  const total = needed(kind, task, dim), done = Math.min(calls, total)
  const found = done === total ? dim : done
  const [latent, data] = task === SCORE ? [found, dim] : [dim, found]
  return { latent, data, found, done, total }
}

const names = (row, n) => (n > 2 ? `${row}1 … ${row}${n}` : n === 2 ? `${row}1, ${row}2` : `${row}1`)

// What the read-out says.
export function reading(task, dim, calls) {
  const row = task === SCORE ? 'z' : 'x'
  const made = { sample: 'its sample', [SCORE]: 'the density', 'sample and score': 'its sample and the density of it' }[task]
  const told = MODELS.map(kind => {
    const { found, done, total } = after(kind, task, dim, calls)
    if (done === total) return `${kind} has ${made}, for ${total} ${total > 1 ? 'calls' : 'call'} of its network`
    return `${kind} has ${found ? names(row, found) : `no ${row}`} and needs ${total - done} more`
  })
  return `After ${calls} ${calls === 1 ? 'call' : 'calls'}: ${told.join('; ')}.`
}

const label = (text, x, y, style = '', anchor = 'middle') =>
  make('text', { x, y, 'text-anchor': anchor, style: `${style}; pointer-events: none` }, text)

// Where the rows stand in a panel, from the top.
const ROW = { z: 46, x: 126 }, TALL = 30, LEFT = 8, WIDE = 296

// A row of cells: known ones are filled, unknown ones are outlines.
function cells(name, dim, known, color) {
  const w = WIDE / dim
  return [...Array(dim).keys()].flatMap(i => {
    const filled = i < known
    const look = filled ? { fill: color } : { fill: 'none', 'stroke-dasharray': '3 3' }
    const place = { x: LEFT + i * w + 1.5, y: ROW[name], width: w - 3, height: TALL, rx: 3, stroke: color }
    const style = `font-size: ${dim > 9 ? 11 : 13}px; ${filled ? 'fill: white' : 'opacity: .75'}`
    return [make('rect', { ...place, ...look }), label(`${name}${i + 1}`, LEFT + (i + 0.5) * w, ROW[name] + 19, style)]
  })
}

// What the last call read to find cell `i`: a cone from the cells before, and an arrow.
function reads(kind, task, dim, i, strong) {
  const w = WIDE / dim, x = LEFT + (i + 0.5) * w
  const top = ROW.z + TALL + 3, bottom = ROW.x - 3
  const [base, tip] = kind === 'MAF' ? [bottom, top + 22] : [top, bottom - 22]
  const [from, to] = task === SCORE ? [bottom, top] : [top, bottom]
  const back = Math.sign(from - to) * 7
  const cone = `M${LEFT + 2} ${base}H${LEFT + i * w - 2}L${x} ${tip}z`
  return [
    i ? make('path', { d: cone, fill: COLORS.floor, 'fill-opacity': strong ? 0.4 : 0.13 }) : '',
    make('path', { d: `M${x} ${from}V${to}M${x - 4} ${to + back}L${x} ${to}L${x + 4} ${to + back}`, fill: 'none', stroke: 'currentColor', 'stroke-width': strong ? 2 : 1 }),
  ]
}

// The calls so far, one square for each that the task needs.
function counter({ done, total }, task) {
  const step = Math.min(15, 122 / total)
  const squares = [...Array(total).keys()].map(k => make('rect', {
    x: LEFT + 2 + step * k, y: 186, width: step - 3, height: 12, stroke: 'currentColor', fill: k < done ? 'currentColor' : 'none' }))
  const known = done === total && task !== TASKS[0] ? ', log p known' : ''
  const text = `${done} of ${total} ${total > 1 ? 'calls' : 'call'}${known}`
  return [...squares, label(text, LEFT + 8 + step * total, 197, done === total ? 'font-weight: bold' : '', 'start')]
}

function drawPanel(p, kind, task, dim, calls) {
  const known = after(kind, task, dim, calls)
  const { found, total } = known
  const last = total > 1 ? [found - 1].filter(i => i >= 0) : [...Array(found).keys()]
  const row = kind === 'MAF' ? 'x' : 'z'
  const frame = { x: LEFT - 4, y: ROW[row] - 4, width: WIDE + 8, height: TALL + 8, rx: 5 }
  p.under.replaceChildren(
    ...last.flatMap(i => reads(kind, task, dim, i, total > 1 || i === dim - 1)),
    ...cells('z', dim, known.latent, COLORS.latent), ...cells('x', dim, known.data, COLORS.data),
    make('rect', { ...frame, fill: 'none', stroke: 'currentColor', 'stroke-opacity': 0.7 }),
    label('the network reads this row', LEFT + WIDE, row === 'z' ? ROW.z - 9 : ROW.x + TALL + 18, 'opacity: .85', 'end'),
    label(`${kind}: ${task}`, LEFT, 14, 'font-weight: bold; font-size: 13px', 'start'),
    ...counter(known, task))
}

export default {
  render({ model, el }) {
    let now
    figure(model, el, {
      name: 'passes',
      start: { task: TASKS[0], dim: model.get('state').dim, calls: 3 },
      controls: {
        task: { label: 'task', options: TASKS },
        dim: { label: 'coordinates D', min: 2, max: 12, step: 1, show: n => `${n}` },
        calls: { label: 'calls so far', min: 0, max: 12, step: 1, show: n => `${Math.min(Math.floor(n), now?.dim ?? n)}` },
        go: { label: 'Play', press: set => play(set, 'calls', 0, now.dim, 0.7 * now.dim) },
      },
      setup(stage) {
        const panels = MODELS.map(() => plane({ x: [0, 1], y: [0, 1], width: 312, height: 206, ticks: 0 }))
        board(stage, panels, 'The cells of MAF and IAF')
        const callsSlider = sliders(stage)[1]
        return values => {
          now = values
          const { task, dim } = values
          const calls = Math.min(Math.floor(values.calls), dim)
          ends(callsSlider, dim, calls)
          panels.forEach((p, k) => drawPanel(p, MODELS[k], task, dim, calls))
          return reading(task, dim, calls)
        }
      },
    })
  },
}
