// What some of the figures share.

// Numbers between 0 and 1 that a seed decides (mulberry32).
export function uniform(seed) {
  let a = seed * 0x9E3779B9 | 0
  return () => {
    a = a + 0x6D2B79F5 | 0
    let t = Math.imul(a ^ a >>> 15, 1 | a)
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32
  }
}

// Planes of a board at their own widths, none blown up where it has a row to itself.
export const sized = (row, sizes) => sizes.forEach((size, k) => {
  row.children[k].style.flex = `${size} 1 ${size}px`
  row.children[k].style.maxWidth = `${Math.round(1.4 * size)}px`
})

// The sliders of a figure, with room beside them for choices with long names.
export function sliders(stage) {
  const root = stage.parentNode
  for (const box of root.querySelectorAll('select')) box.parentNode.style.minWidth = 'min-content'
  return [...root.querySelectorAll('input[type=range]')]
}

// A slider that ends where another value says.
export function ends(slider, max, value) {
  slider.max = max
  slider.value = value
}
