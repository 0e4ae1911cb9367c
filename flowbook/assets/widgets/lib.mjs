// What the moving figures of the book share: a frame with controls, a plane to draw on,
// points to drag, and the life of a figure on a page without a kernel. No dependency.

export const COLORS = {
  latent: '#0072B2', data: '#D55E00', model: '#009E73', other: '#CC79A7', floor: '#767676',
}

const SVG = 'http://www.w3.org/2000/svg'
const DRAWN = ['svg', 'g', 'path', 'circle', 'rect', 'line', 'text', 'polygon', 'polyline', 'image',
  'defs', 'clipPath', 'pattern']

// An element with attributes and children; children are elements or text. What can have
// the focus keeps its arrow keys, which JupyterLab would take to move between cells.
export function make(tag, attributes = {}, ...children) {
  const keyed = ['input', 'select', 'button'].includes(tag) || 'tabindex' in attributes
  if (keyed) attributes = { ...attributes, 'data-lm-suppress-shortcuts': 'true' }
  const e = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag)
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
  e.append(...children)
  return e
}

export const fixed = (x, digits = 2) => (x < 0 && +x.toFixed(digits) === 0 ? 0 : x).toFixed(digits).replace('-', '−')
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high)
export const range = (n, low, high) => Array.from({ length: n }, (_, i) => low + (high - low) * i / (n - 1))

// Base64 of little-endian float32 → numbers.
export function numbers(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0))
  return new Float32Array(bytes.buffer)
}

const STYLE = `
.fb { max-width: 640px; margin: 1em auto; font: 14px/1.4 system-ui, "Liberation Sans", sans-serif; }
.fb svg { display: block; width: 100%; height: auto; min-width: 0; overflow: visible; }
.fb-board { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: flex-start; }
.fb svg text { fill: currentColor; font-size: 12px; }
.fb canvas { image-rendering: pixelated; max-width: 100%; }
.fb-controls { display: flex; flex-wrap: wrap; gap: .4em 1.2em; align-items: end; margin: .3em 0; }
.fb-controls label { display: grid; flex: 1 1 130px; min-width: 120px; }
.fb-controls input[type=range] { width: 100%; height: 28px; margin: 0; accent-color: ${COLORS.latent}; }
.fb-controls select, .fb-controls button { font: inherit; min-height: 32px; padding: 0 .7em; color: inherit;
  background: transparent; border: 1px solid currentColor; border-radius: 4px; }
.fb-controls option { color: #222; background: #fff; }
.fb-controls button { cursor: pointer; }
.fb-says { min-height: 2.8em; margin: .3em 0 0; }
.fb-handle { cursor: grab; touch-action: none; }
.fb :focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
`

// A box with controls, a stage and a read-out. `start` holds the first value of each name;
// `controls` says how names are set; `setup(stage, set)` builds the picture once and returns
// `draw(values)`, which brings it up to date and returns the words of the read-out.
export function figure(model, el, { name, start, controls = {}, setup }) {
  if (!document.getElementById('fb-style')) document.head.append(make('style', { id: 'fb-style' }, STYLE))
  const values = { ...start, ...allowed(given(name, start), controls), ...(model.get('values') ?? {}) }
  const root = make('div', { class: 'fb', role: 'group', 'aria-label': name })
  const stage = make('div')
  const bar = make('div', { class: 'fb-controls' })
  const says = make('p', { class: 'fb-says', 'aria-live': 'polite' })
  root.append(stage, bar, says)
  el.replaceChildren(root)
  const inputs = Object.entries(controls).map(([key, c]) => control(bar, key, c, set))
  const reset = make('button', { type: 'button' }, 'Reset')
  reset.addEventListener('click', () => set({ ...start }))
  bar.append(reset)
  const draw = setup(stage, set, values)

  function update() {
    for (const show of inputs) show(values)
    says.textContent = draw(values) ?? ''
  }
  function set(changes) {
    Object.assign(values, changes)
    update()
    tell(name, values, start)
    model.set('values', { ...values })
    model.save_changes()
  }
  model.on('change:values', () => {
    const sent = model.get('values') ?? {}
    if (JSON.stringify(sent) === JSON.stringify(values)) return
    Object.assign(values, sent)
    update()
  })
  update()
  return { set, values, root }
}

// Values from an address, as far as the controls could have set them.
function allowed(values, controls) {
  return Object.fromEntries(Object.entries(values).flatMap(([k, v]) => {
    const { min, max, options } = controls[k] ?? {}
    if (options && !options.includes(v)) return []
    return [[k, min === undefined ? v : clamp(v, min, max)]]
  }))
}

// One control: `{ label, min, max, step }`, `{ label, options }`, `{ label, press }`.
function control(bar, key, c, set) {
  if (c.press) {
    const b = make('button', { type: 'button' }, c.label)
    b.addEventListener('click', () => c.press(set))
    bar.append(b)
    return () => {}
  }
  if (c.options) {
    const options = c.options.map(o => make('option', { value: o }, o))
    const box = make('select', {}, ...options)
    box.addEventListener('change', () => set({ [key]: box.value }))
    bar.append(make('label', {}, c.label, box))
    return values => { box.value = values[key] }
  }
  const { label, min, max, step, show = x => fixed(x) } = c
  const input = make('input', { type: 'range', min, max, step })
  const value = make('output')
  input.addEventListener('input', () => set({ [key]: +input.value }))
  bar.append(make('label', {}, make('span', {}, `${label}: `, value), input))
  return values => {
    input.value = values[key]
    value.textContent = show(values[key])
    input.setAttribute('aria-valuetext', show(values[key]))
  }
}

// A plane with axes. `px`, `py` turn numbers into places; `top` and `under` hold what is drawn.
export function plane({ x, y, width = 300, height = 300, title = '', equal = false, ticks = 4, across = ticks }) {
  if (equal) height = width * (y[1] - y[0]) / (x[1] - x[0])
  const left = 30, below = 22, above = title ? 20 : 6
  const px = v => left + (v - x[0]) / (x[1] - x[0]) * (width - left - 6)
  const py = v => above + (y[1] - v) / (y[1] - y[0]) * (height - above - below)
  const g = make('g')
  const frame = `M${px(x[0])} ${py(y[1])}V${py(y[0])}H${px(x[1])}`
  if (ticks) g.append(make('path', { d: frame, fill: 'none', stroke: 'currentColor' }))
  for (const v of across ? nice(x, across) : [])
    g.append(make('text', { x: px(v), y: height - 6, 'text-anchor': 'middle' }, words(v)))
  for (const v of ticks ? nice(y, ticks) : [])
    g.append(make('text', { x: left - 5, y: py(v) + 4, 'text-anchor': 'end' }, words(v)))
  if (title) g.append(make('text', { x: (px(x[0]) + px(x[1])) / 2, y: 13, 'text-anchor': 'middle' }, title))
  const under = make('g'), top = make('g')
  g.append(under, top)
  return { g, under, top, px, py, x, y, width, height,
    path: points => points.map(([a, b], i) => `${i ? 'L' : 'M'}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join('') }
}

const words = v => String(+v.toPrecision(6)).replace('-', '−')

// Round numbers within a range.
export function nice([low, high], n) {
  const raw = (high - low) / n
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map(k => k * power).find(s => s >= raw)
  const found = []
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) found.push(v)
  return found
}

// Planes side by side, one below the other where the page is narrow.
export function board(stage, planes, label) {
  const row = make('div', { class: 'fb-board', role: 'group', 'aria-label': label })
  for (const p of planes) {
    const svg = make('svg', { viewBox: `0 0 ${p.width} ${p.height}`, style: `flex: ${p.width} 1 ${Math.min(p.width, 260)}px` })
    svg.append(p.g)
    row.append(svg)
  }
  stage.append(row)
  return row
}

// A point that can be dragged, or moved with the arrow keys. `at(values)` says where it is,
// `move([x, y])` what a new place means. `free`: 'x', 'y' or 'xy'.
export function handle(p, { label, color = COLORS.data, free = 'xy', step = 0.1, move, r = 7 }) {
  const dot = make('circle', { r, fill: color, stroke: 'currentColor', class: 'fb-handle', tabindex: 0, role: 'slider', 'aria-label': label })
  const halo = fingers(p, dot)
  let here = [0, 0]
  const go = ([a, b]) => move([
    free.includes('x') ? clamp(a, ...p.x) : here[0], free.includes('y') ? clamp(b, ...p.y) : here[1]])
  const place = event => {
    const m = p.g.getScreenCTM().inverse()
    const q = new DOMPoint(event.clientX, event.clientY).matrixTransform(m)
    const [x0, x1, y0, y1] = [p.px(p.x[0]), p.px(p.x[1]), p.py(p.y[0]), p.py(p.y[1])]
    return [p.x[0] + (q.x - x0) / (x1 - x0) * (p.x[1] - p.x[0]), p.y[0] + (q.y - y0) / (y1 - y0) * (p.y[1] - p.y[0])]
  }
  dot.addEventListener('pointerdown', e => { dot.setPointerCapture(e.pointerId); e.preventDefault(); dot.focus() })
  dot.addEventListener('pointermove', e => dot.hasPointerCapture(e.pointerId) && go(place(e)))
  dot.addEventListener('keydown', e => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key]
    if (!way) return
    const size = e.shiftKey ? 5 * step : step
    e.preventDefault()
    e.stopPropagation()
    go([here[0] + way[0] * size, here[1] + way[1] * size])
  })
  return at => {
    here = at
    dot.setAttribute('cx', p.px(at[0]))
    dot.setAttribute('cy', p.py(at[1]))
    halo.setAttribute('cx', p.px(at[0]))
    halo.setAttribute('cy', p.py(at[1]))
    const free1 = free === 'y' ? 1 : 0
    const texts = free === 'xy' ? `${fixed(at[0])}, ${fixed(at[1])}` : fixed(at[free1])
    dot.setAttribute('aria-valuenow', fixed(at[free1]).replace('−', '-'))
    dot.setAttribute('aria-valuemin', (free1 ? p.y : p.x)[0])
    dot.setAttribute('aria-valuemax', (free1 ? p.y : p.x)[1])
    dot.setAttribute('aria-valuetext', texts)
  }
}

// Move the value `key` to `end` within some seconds; at once where motion is not wanted.
export function play(set, key, start, end, seconds = 2) {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return set({ [key]: end })
  const begin = performance.now()
  const step = now => {
    const part = clamp((now - begin) / 1000 / seconds, 0, 1)
    set({ [key]: start + part * (end - start) })
    if (part < 1) requestAnimationFrame(step)
  }
  requestAnimationFrame(step)
}

// The values in the address of a page, `#w-NAME:a=1;b=2`, so that they can be shared.
const own = name => `#w-${name}:`
function given(name, start) {
  const hash = decodeURIComponent(globalThis.location?.hash ?? '')
  if (!hash.startsWith(own(name))) return {}
  const pairs = hash.slice(own(name).length).split(';').map(p => p.split('='))
  return Object.fromEntries(pairs.filter(([k]) => k in start).map(([k, v]) => {
    if (Array.isArray(start[k])) return [k, v.split(',').map(Number)]
    return [k, typeof start[k] === 'number' ? Number(v) : v]
  }).filter(([, v]) => [v].flat().every(x => !Number.isNaN(x))))
}
let waiting
function tell(name, values, start) {
  if (!globalThis.location?.hash.startsWith(own(name)) && !document.querySelector('.fb-page')) return
  const text = Object.keys(start).map(k => `${k}=${[values[k]].flat().map(v => typeof v === 'number' ? +v.toFixed(4) : v)}`).join(';')
  clearTimeout(waiting)
  waiting = setTimeout(() => history.replaceState(null, '', own(name) + text), 200)
}

// Standard normal numbers from a seed (mulberry32, Box and Muller).
export function normals(seed, n) {
  let a = seed >>> 0
  const uniform = () => {
    a = (a + 0x6D2B79F5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), a | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return Float32Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()))
}

// Bytes that are too many for a page: from the kernel, or from a file of the site.
export async function bytes(model, name) {
  if (model.file) return new Uint8Array(await model.file(name))
  return new Promise(done => {
    model.on('msg:custom', (message, buffers) => message === name && done(new Uint8Array(buffers[0].buffer)))
    model.send(name)
  })
}

// A figure on a page without a kernel: its state stands in the page, and its still goes.
export function mount(box, widget) {
  const state = JSON.parse(box.querySelector('script[type="application/json"]').textContent)
  const data = { state, values: null }
  const file = async name => (await fetch(box.dataset.files + name)).arrayBuffer()
  const model = { get: k => data[k], set: (k, v) => { data[k] = v }, on() {}, save_changes() {}, file }
  box.classList.add('fb-page')
  const el = document.createElement('div')
  widget.render({ model, el })
  box.replaceChildren(el)
}

// Room for a finger around a point: it lies beneath all points, and hands the pointer to its own.
function fingers(p, dot) {
  const halo = make('circle', { r: 16, fill: 'transparent', style: 'cursor: grab; touch-action: none' })
  halo.addEventListener('pointerdown', e => dot.dispatchEvent(new PointerEvent('pointerdown', e)))
  p.top.prepend(halo)
  p.top.append(dot)
  return halo
}
