// A monotone rational-quadratic spline through knots `{ x, y, d }`: places, values, slopes.
// Beyond the outermost knots it goes on straight, with their slopes.

// Mean slope of each piece.
export const secants = ({ x, y }) => x.slice(1).map((v, k) => (y[k + 1] - y[k]) / (v - x[k]))

// The piece around `v` on one of the two axes: -1 before the first, `x.length − 1` behind the last.
const piece = (row, v) => row.filter(k => k <= v).length - 1

function ends({ x, y, d }, k) {
  const w = x[k + 1] - x[k], h = y[k + 1] - y[k]
  return { w, h, s: h / w, d0: d[k], d1: d[k + 1] }
}

// Slope at the share `xi` of a piece's width, and the denominator of the value.
function slopeOf(xi, { s, d0, d1 }) {
  const below = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
  return [(s / below) ** 2 * (d0 * (1 - xi) ** 2 + 2 * s * xi * (1 - xi) + d1 * xi ** 2), below]
}

// Value and slope at `v`.
export function along(v, knots) {
  const { x, y, d } = knots, k = piece(x, v), last = x.length - 1
  if (k < 0) return [y[0] + d[0] * (v - x[0]), d[0]]
  if (k === last) return [y[last] + d[last] * (v - x[last]), d[last]]
  const p = ends(knots, k), xi = (v - x[k]) / p.w
  const [slope, below] = slopeOf(xi, p)
  return [y[k] + p.h * xi * (p.s * xi + p.d0 * (1 - xi)) / below, slope]
}

// The place whose value is `u`, and the slope of this inverse: the root that loses no digits.
export function back(u, knots) {
  const { x, y, d } = knots, k = piece(y, u), last = y.length - 1
  if (k < 0) return [x[0] + (u - y[0]) / d[0], 1 / d[0]]
  if (k === last) return [x[last] + (u - y[last]) / d[last], 1 / d[last]]
  const p = ends(knots, k), t = (u - y[k]) / p.h
  const delta = p.d0 * (1 - t) - p.d1 * t
  const under = 2 * p.s * t, over = 2 * p.s * (1 - t)
  const r = Math.sqrt(delta ** 2 + under * over) + Math.abs(delta)
  const [share, rest] = delta < 0 ? [r, over] : [under, r]
  const xi = share / (share + rest)
  return [x[k] + p.w * xi, 1 / slopeOf(xi, p)[0]]
}
