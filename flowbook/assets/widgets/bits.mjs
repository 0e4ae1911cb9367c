// From a printed number of nats to bits per dimension, and what to compare it with.
// One finds: the larger number of nats is not the better model: what its unit lacks can be ten times as much.

import { COLORS, board, figure, fixed, handle, make, plane } from './lib.mjs'

// Bits per dimension of a log-density in nats, after a term for its unit is added.
export const toBits = (nats, term, dim) => -(nats + term) / (dim * Math.log(2))
export const toNats = (bits, term, dim) => -bits * dim * Math.log(2) - term

// The last rung of a ladder that a number of bits beats, and the first that beats it.
export function neighbours(ladder, bits) {
  const rungs = Object.entries(ladder).sort((a, b) => b[1] - a[1])
  return [rungs.filter(([, v]) => v > bits).at(-1)?.[0], rungs.find(([, v]) => v <= bits)?.[0]]
}

// What a number of bits per dimension can be, for images of 8 bits.
export function judgement(ladder, bits) {
  if (bits < 0) return 'below 0, where no code can be: it is not a density of these images'
  const [beaten, better] = neighbours(ladder, bits)
  if (!beaten) return `above ${better}, the worst of the ladder`
  return better ? `on the ladder between ${beaten} and ${better}` : `below ${beaten}, the best of the ladder`
}

const LONGEST = 2.2 // bits of a bar

const signed = x => `${x < 0 ? '−' : '+'} ${fixed(Math.abs(x), 1)}`

export default {
  render({ model, el }) {
    const { dim, units, quoted, ladder } = model.get('state')
    const rungs = Object.entries(ladder).sort((a, b) => b[1] - a[1])
    const buttons = quoted.map(q => [q.name, { label: q.name, press: set => set({ nats: q.nats, unit: q.unit }) }])
    const unitOf = name => units.find(u => u.name === name)
    const first = quoted.find(q => q.start) ?? quoted[0]

    figure(model, el, {
      name: 'bits',
      start: { nats: first.nats, unit: first.unit },
      controls: {
        nats: { label: 'nats', min: -6000, max: 5000, step: 10, show: v => fixed(v, 1) },
        unit: { label: 'a density of', options: units.map(u => u.name) },
        ...Object.fromEntries(buttons),
      },
      setup(stage, set) {
        const left = plane({ x: [-11, 11], y: [0, 3.4], width: 310, height: 220, title: 'from nats to bits/dim', ticks: 0 })
        const right = plane({ x: [0, 4.8], y: [0, rungs.length], width: 310, height: 220, title: 'the ladder of mnist10k, bits/dim', ticks: 0 })
        board(stage, [left, right], 'A conversion and a ladder of bits per dimension')
        const word = (p, x, y, text, more = {}) => {
          const e = make('text', { x: p.px(x), y: p.py(y), ...more }, text)
          p.under.append(e)
          return e
        }
        const bar = (p, y, color, wide = 10) => {
          const e = make('path', { stroke: color, 'stroke-width': wide, fill: 'none' })
          p.under.append(e)
          return (a, b) => e.setAttribute('d', p.path([[a, y], [b, y]]))
        }
        const wall = { x: left.px(-11), y: left.py(3.4), width: left.px(0) - left.px(-11), height: left.py(0) - left.py(3.4) }
        left.under.append(make('rect', { ...wall, fill: COLORS.floor, 'fill-opacity': 0.2 }))
        for (const [p, marks] of [[left, [-10, -5, 0, 5, 8]], [right, [0, 1, 2]]]) {
          p.under.append(make('path', { d: p.path([[p.x[0], 0], [p.x[1], 0]]), stroke: 'currentColor' }))
          for (const v of marks) word(p, v, 0, `${v}`.replace('-', '−'), { dy: 16, 'text-anchor': 'middle' })
        }
        left.under.append(make('path', { d: left.path([[8, 0], [8, 3.05]]), stroke: COLORS.floor, 'stroke-dasharray': '3 3' }))
        word(left, -10.8, 3.15, 'no code')
        word(left, 11, 3.15, 'raw bytes', { 'text-anchor': 'end' })
        const middle = { 'text-anchor': 'middle' }
        const printed = word(left, 0, 2.72, '', middle), added = word(left, 0, 1.72, '', middle), result = word(left, 0, 0.72, '', middle)
        const before = bar(left, 2.45, COLORS.floor), term = bar(left, 1.45, COLORS.other), after = bar(left, 0.45, COLORS.model)

        rungs.forEach(([name, v], i) => {
          const y = rungs.length - i - 0.5
          bar(right, y, COLORS.floor, 16)(0, Math.min(v, LONGEST))
          word(right, 0.08, y, v > LONGEST ? `${fixed(v)} (cut)` : fixed(v), { dy: 4, style: 'fill: #fff' })
          word(right, LONGEST, y, name, { dy: 4, dx: 6 })
        })
        const cursor = make('path', { stroke: COLORS.model, 'stroke-width': 2.5 })
        right.under.append(cursor)
        const point = handle(left, {
          label: 'bits per dimension', color: COLORS.model, free: 'x', step: 0.1,
          move: ([bits]) => set({ nats: toNats(bits, unitOf(now.unit).term, dim) }),
        })
        let now
        return values => {
          now = values
          const { nats, unit } = values
          const { term: extra, what } = unitOf(unit)
          const start = toBits(nats, 0, dim), bits = toBits(nats, extra, dim)
          before(0, start)
          term(start, bits)
          after(0, bits)
          printed.textContent = `printed ${fixed(nats, 1)} nats`
          added.textContent = extra ? `${what} ${signed(extra)} nats` : 'nothing to add'
          result.textContent = `${fixed(nats + extra, 1)} nats, ${fixed(bits)} bits/dim`
          point([bits, 0.45])
          cursor.setAttribute('d', bits >= 0 && bits <= LONGEST ? right.path([[bits, 0], [bits, rungs.length]]) : '')
          return `${fixed(nats, 1)} ${signed(extra)} = ${fixed(nats + extra, 1)} nats, with pixels in grey levels; `
            + `divided by −${dim} log 2, ${fixed(bits)} bits/dim, ${judgement(ladder, bits)}.`
        }
      },
    })
  },
}
