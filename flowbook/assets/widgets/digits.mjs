// Sample a digit from a trained flow on 784 dimensions, and drag its latent vector.
// One finds: a digit changes smoothly with its latent vector, and a low temperature makes it plainer.

import { COLORS, board, bytes, fixed, figure, handle, make, normals, plane } from './lib.mjs'
import { bounded } from './flow2d.mjs'

// Whole numbers of `bits` bits each, packed from the lowest bit of each byte upwards.
export function unpack(data, count, bits) {
  const codes = new Uint8Array(count)
  let held = 0, have = 0, at = 0
  for (let i = 0; i < count; i++) {
    while (have < bits) {
      held |= data[at++] << have
      have += 8
    }
    codes[i] = held & ((1 << bits) - 1)
    held >>>= bits
    have -= bits
  }
  return codes
}

// The flow that `state` describes, with the numbers in `data`.
export function imageFlow(state, data) {
  const floats = (at, n) => new Float32Array(data.buffer.slice(data.byteOffset + at, data.byteOffset + at + 4 * n))
  const middle = 2 ** (state.bits - 1) - 1
  const matrix = told => {
    const { rows, columns } = told
    const scale = floats(told.scale, rows), bias = floats(told.bias, rows)
    const codes = unpack(data.subarray(told.codes), rows * columns, state.bits)
    const w = new Float32Array(rows * columns)
    for (let i = 0, at = 0; i < rows; i++)
      for (let j = 0; j < columns; j++, at++) w[at] = (codes[at] - middle) * scale[i]
    return { rows, columns, bias, w }
  }
  const layers = state.layers.map(l => ({ flip: l.flip, matrices: l.matrices.map(matrix) }))
  const mean = floats(state.mean, state.size), log_s = floats(state.log_s, state.size)
  return { ...state, layers, mean, s: log_s.map(Math.exp) }
}

function linear({ rows, columns, bias, w }, h) {
  const out = new Float32Array(rows)
  for (let i = 0; i < rows; i++) {
    let sum = bias[i]
    for (let j = 0, at = i * columns; j < columns; j++) sum += w[at + j] * h[j]
    out[i] = sum
  }
  return out
}

const silu = h => h.map(v => v / (1 + Math.exp(-v)))

// One coupling: the half that stays says how the other is scaled and shifted.
function couple({ flip, matrices }, z, bound) {
  const half = z.length / 2
  const [first, second] = [z.subarray(0, half), z.subarray(half)]
  let h = flip ? second : first
  matrices.forEach((m, i) => { h = linear(m, i ? silu(h) : h) })
  const out = z.slice()
  const start = flip ? 0 : half
  for (let i = 0; i < half; i++) {
    const v = z[start + i]
    out[start + i] = v * Math.exp(bounded(h[2 * i], bound)) + h[2 * i + 1]
  }
  return out
}

// The states of a latent vector after 0, 1, … layers.
export function states(flow, z) {
  const all = [Float32Array.from(z)]
  for (const layer of flow.layers) all.push(couple(layer, all.at(-1), flow.bound))
  return all
}

// A state as grey values from 0 to 1, through the end that leads to pixels.
export function pixels(flow, u) {
  return Float32Array.from(flow.order, (from, i) => {
    const y = flow.mean[i] + flow.s[i] * u[from]
    const p = 1 / (1 + Math.exp(-y))
    return Math.min(Math.max((p - flow.lam) / (1 - 2 * flow.lam), 0), 1)
  })
}

// The latent vector of some settings: noise, and two more vectors to go along.
export function latent({ seed, temperature, way }, n) {
  const [z, u, v] = [0, 1, 2].map(k => normals(3 * seed + k, n))
  return z.map((value, i) => temperature * value + way[0] * u[i] + way[1] * v[i])
}

function paint(canvas, grey, side) {
  const image = new ImageData(side, side)
  grey.forEach((g, i) => image.data.set([255 * g, 255 * g, 255 * g, 255], 4 * i))
  canvas.getContext('2d').putImageData(image, 0, 0)
}

export default {
  render({ model, el }) {
    const state = model.get('state')
    const last = state.layers.length
    let flow = null, waiting = false

    const shown = figure(model, el, {
      name: 'digits',
      start: { seed: state.seed, temperature: 0.7, k: last, way: [0, 0] },
      controls: {
        next: { label: 'New digit', press: set => set({ seed: shown.values.seed + 1, way: [0, 0] }) },
        temperature: { label: 'temperature', min: 0, max: 1.2, step: 0.05 },
        k: { label: 'layers', min: 0, max: last, step: 1, show: k => fixed(k, 0) },
      },
      setup(stage, set) {
        const side = Math.sqrt(state.size)
        const canvas = make('canvas', { width: side, height: side, role: 'img', 'aria-label': 'the digit', style: 'width: 224px; height: 224px' })
        const pad = plane({ x: [-1.5, 1.5], y: [-1.5, 1.5], width: 250, height: 240, title: 'two directions of the latent space' })
        const row = board(stage, [pad], 'The digit, and a plane of the latent space')
        row.prepend(canvas)
        const dot = handle(pad, { label: 'latent vector', color: COLORS.latent, move: way => set({ way }) })
        paint(canvas, state.first, side)
        let touched = false
        return values => {
          dot(values.way)
          if (flow) paint(canvas, pixels(flow, states(flow, latent(values, state.size))[values.k]), side)
          if (!flow && touched) load()
          touched = true
          const where = values.k === last ? 'Data' : values.k === 0 ? 'Noise' : `After ${values.k} of ${last} couplings`
          return `${where}: digit ${values.seed + 1}, ${state.size} numbers. ${waiting && !flow ? 'The weights are on their way.' : ''}`
        }
      },
    })

    async function load() {
      if (waiting) return
      waiting = true
      flow = imageFlow(state, await bytes(model, state.file))
      shown.set({})
    }
  },
}
