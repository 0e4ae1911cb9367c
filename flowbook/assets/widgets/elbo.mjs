// Move an encoder over a posterior: the bound moves, and log p(x) does not.
// One finds: moving the encoder moves the bound and never log p(x); the gap closes only at the posterior.

import { COLORS, board, clamp, figure, fixed, handle, make, numbers, plane, range } from './lib.mjs'

const LOG_TAU = Math.log(2 * Math.PI)
const inner = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0)
const logBell = (z, mean, sd) => -0.5 * (((z - mean) / sd) ** 2 + LOG_TAU) - Math.log(sd)
const bell = (z, mean, sd) => Math.exp(logBell(z, mean, sd))
const top = sd => bell(0, 0, sd)

// log p(x | z) of the model z ~ N(0, 1), x = w z + b + s ε.
export function logDecoder({ w, b, s, x }, z) {
  return x.reduce((sum, v, i) => sum + logBell(v, b[i] + w[i] * z, s), 0)
}

// Mean and standard deviation of p(z | x).
export function posterior({ w, b, s, x }) {
  const precision = 1 + inner(w, w) / s ** 2
  return { mean: inner(x.map((v, i) => v - b[i]), w) / s ** 2 / precision, sd: precision ** -0.5 }
}

// log p(x) by Bayes, which is the same number at every z.
export function evidence(law, z = 0) {
  const { mean, sd } = posterior(law)
  return logDecoder(law, z) + logBell(z, 0, 1) - logBell(z, mean, sd)
}

// KL(N(m1, s1²) ‖ N(m2, s2²)).
export function divergence(m1, s1, m2, s2) {
  return Math.log(s2 / s1) + (s1 ** 2 + (m1 - m2) ** 2) / (2 * s2 ** 2) - 0.5
}

// The terms of the bound for q = N(m, sd²), and what it lacks.
export function terms(law, m, sd) {
  const exact = posterior(law)
  const fit = logDecoder(law, m) - 0.5 * inner(law.w, law.w) * (sd / law.s) ** 2
  const prior = divergence(m, sd, 0, 1)
  return { fit, prior, elbo: fit - prior, gap: divergence(m, sd, exact.mean, exact.sd) }
}

// The bound with K draws inside the logarithm, averaged over groups of K of the noises.
export function inside(law, m, sd, K, noises) {
  const exact = posterior(law)
  const weights = noises.map(e => logBell(m + sd * e, exact.mean, exact.sd) - logBell(e, 0, 1) + Math.log(sd))
  let total = 0
  for (let i = 0; i < weights.length; i += K) {
    const group = weights.slice(i, i + K)
    const most = Math.max(...group)
    total += most + Math.log(group.reduce((sum, v) => sum + Math.exp(v - most), 0) / K)
  }
  return evidence(law) + total * K / weights.length
}

const LEAST = 0.25, MOST = 1.5

export default {
  render({ model, el }) {
    const { law, start, noise } = model.get('state')
    const noises = Array.from(numbers(noise))
    const exact = posterior(law), truth = evidence(law), bottom = truth - 6
    const curve = (f, [low, high], n) => range(n, low, high).map(v => [v, f(v)])

    figure(model, el, {
      name: 'elbo',
      start: { ...start, log2K: 0 },
      controls: {
        m: { label: 'mean of q', min: -1, max: 2, step: 0.02 },
        sd: { label: 'sd of q', min: LEAST, max: MOST, step: 0.01 },
        log2K: { label: 'draws K', min: 0, max: 6, step: 1, show: k => `${2 ** k}` },
        go: { label: 'q = posterior', press: set => set({ m: exact.mean, sd: exact.sd }) },
      },
      setup(stage, set) {
        const left = plane({ x: [-2.5, 2.5], y: [0, 1.65], width: 310, height: 250, title: 'densities of z' })
        const right = plane({ x: [-1, 2], y: [bottom, truth + 0.8], width: 310, height: 250, title: 'nats, for each mean of q' })
        board(stage, [left, right], 'An encoder over the posterior, and its bound')
        const line = (p, color, more = {}) => {
          const path = make('path', { fill: 'none', stroke: color, 'stroke-width': 2, ...more })
          p.under.append(path)
          return path
        }
        const name = (p, x, y, words, color, more) => {
          const swatch = make('path', { d: `M${p.px(x)} ${p.py(y) - 4}h16`, stroke: color, 'stroke-width': 2, ...more })
          const text = make('text', { x: p.px(x) + 21, y: p.py(y) }, words)
          p.under.append(swatch, text)
          return [swatch, text]
        }

        line(left, COLORS.latent).setAttribute('d', left.path(curve(z => bell(z, 0, 1), left.x, 121)))
        line(left, COLORS.data).setAttribute('d', left.path(curve(z => bell(z, exact.mean, exact.sd), left.x, 241)))
        const encoder = line(left, COLORS.model, { fill: COLORS.model, 'fill-opacity': 0.15 })
        name(left, -2.4, 1.5, 'prior π(z)', COLORS.latent)
        name(left, -2.4, 1.36, 'posterior p(z|x)', COLORS.data)
        name(left, -2.4, 1.22, 'encoder q(z), drag it', COLORS.model)

        const elbo = line(right, COLORS.model), tighter = line(right, COLORS.model, { 'stroke-dasharray': '5 4' })
        line(right, 'currentColor', { 'stroke-dasharray': '2 3' }).setAttribute('d', right.path([[-1, truth], [2, truth]]))
        const limit = make('text', { y: right.py(truth) - 6 }, 'log p(x)')
        const gap = line(right, COLORS.other, { 'stroke-width': 5 })
        const size = make('text', { y: right.py(truth) - 6 })
        const here = make('circle', { r: 5, fill: COLORS.model, stroke: 'currentColor' })
        right.under.append(here, size, limit)
        name(right, -0.2, bottom + 0.9, 'ELBO', COLORS.model)
        const second = name(right, -0.2, bottom + 0.3, '', COLORS.model, { 'stroke-dasharray': '5 4' })

        const peak = handle(left, {
          label: 'mean and height of q', color: COLORS.model, step: 0.05,
          move: ([m, height]) => set({ m: clamp(m, -1, 2), sd: clamp(top(1) / height, LEAST, MOST) }),
        })
        const place = (text, x, anchor) => {
          text.setAttribute('x', right.px(x) + (anchor === 'start' && x === -1 ? 4 : 0))
          text.setAttribute('text-anchor', anchor)
        }
        return ({ m, sd, log2K }) => {
          const K = 2 ** log2K, now = terms(law, m, sd)
          encoder.setAttribute('d', left.path(curve(z => bell(z, m, sd), left.x, 161)))
          peak([m, top(sd)])
          const shown = f => right.path(curve(f, right.x, 61).filter(([, v]) => v > bottom))
          elbo.setAttribute('d', shown(v => terms(law, v, sd).elbo))
          tighter.setAttribute('d', K > 1 ? shown(v => inside(law, v, sd, K, noises)) : '')
          const end = Math.max(now.elbo, bottom)
          gap.setAttribute('d', right.path([[m, end], [m, truth]]))
          here.setAttribute('cx', right.px(m))
          here.setAttribute('cy', right.py(end))
          place(size, m, m > 1.4 ? 'end' : m < -0.4 ? 'start' : 'middle')
          place(limit, ...(m > 0.5 ? [-1, 'start'] : [2, 'end']))
          second[1].textContent = `K = ${K} inside the log`
          for (const part of second) part.setAttribute('visibility', K > 1 ? 'visible' : 'hidden')
          size.textContent = `gap ${fixed(now.gap)}`
          const more = K > 1 ? ` With ${K} draws inside the logarithm the bound is ${fixed(inside(law, m, sd, K, noises))}.` : ''
          return `ELBO = E log p(x|z) − KL(q‖π) = ${fixed(now.fit)} − ${fixed(now.prior)} = ${fixed(now.elbo)} nats. `
            + `Wherever q stands, log p(x) = ${fixed(truth)}: the gap, ${fixed(now.gap)}, is KL(q‖posterior).${more}`
        }
      },
    })
  },
}
