// The arithmetic of a flow of the plane: affine couplings with networks, and a standard end.

import { numbers } from './lib.mjs'

const ACTIVATIONS = { tanh: Math.tanh, relu: x => Math.max(x, 0), silu: x => x / (1 + Math.exp(-x)) }

// A fully connected network: `sizes` of its layers, weights and biases in one row.
export function network({ sizes, weights, activation }) {
  const w = numbers(weights)
  const act = ACTIVATIONS[activation]
  return read => {
    let h = read, at = 0
    for (let k = 1; k < sizes.length; k++) {
      const [n, m] = [sizes[k - 1], sizes[k]]
      const next = new Float64Array(m)
      for (let i = 0; i < m; i++) {
        let sum = w[at + m * n + i]
        for (let j = 0; j < n; j++) sum += w[at + i * n + j] * h[j]
        next[i] = k < sizes.length - 1 ? act(sum) : sum
      }
      at += m * n + m
      h = next
    }
    return h
  }
}

// One layer with both directions: each returns the new point and the log-determinant of
// the map that it has just applied.
export function layer(told) {
  if (told.kind === 'scale') {
    const total = told.log_s[0] + told.log_s[1]
    return {
      forward: z => [z.map((v, i) => v * Math.exp(told.log_s[i]) + told.mean[i]), total],
      inverse: x => [x.map((v, i) => (v - told.mean[i]) * Math.exp(-told.log_s[i])), -total],
    }
  }
  const net = network(told)
  const moves = told.flip ? 0 : 1, reads = 1 - moves
  const ask = v => {
    const r = told.reach
    const read = r === null ? v[reads] : Math.min(Math.max(v[reads], -r), r)
    const [raw, t] = net([read])
    const log_s = told.bound === null ? raw : bounded(raw, told.bound)
    return [told.additive ? 0 : log_s, told.additive ? raw : t]
  }
  const put = (v, value) => (moves ? [v[0], value] : [value, v[1]])
  return {
    forward: z => {
      const [log_s, t] = ask(z)
      return [put(z, z[moves] * Math.exp(log_s) + t), log_s]
    },
    inverse: x => {
      const [log_s, t] = ask(x)
      return [put(x, (x[moves] - t) * Math.exp(-log_s)), -log_s]
    },
  }
}

// The bounded log-scale of the book's affine maps.
export const bounded = (raw, bound) => bound * Math.tanh(raw / bound)

// A chain of layers: all states on the way, and the sum of the log-determinants so far.
export function chain(told) {
  const layers = told.map(layer)
  return {
    layers,
    trace(z) {
      const states = [z], sums = [0]
      for (const f of layers) {
        const [next, log_det] = f.forward(states.at(-1))
        states.push(next)
        sums.push(sums.at(-1) + log_det)
      }
      return { states, sums }
    },
    inverse(x, from = layers.length) {
      let v = x, sum = 0
      for (let k = from; k > 0; k--) {
        const [next, log_det] = layers[k - 1].inverse(v)
        v = next
        sum += log_det
      }
      return [v, sum]
    },
  }
}

export const logNormal = z => -0.5 * (z[0] ** 2 + z[1] ** 2) - Math.log(2 * Math.PI)
