"""Open every page of a built site in a browser and report what a reader would mind.

    python tools/look.py FOLDER [PAGE …]

`FOLDER` is what Quarto or `tools/preview.py` wrote. Each page is opened at three widths,
in light and dark, with everything unfolded and no other host in reach: what overflows,
what was asked of other hosts, formulas that do not parse, marks of the source that show
through, pictures too coarse or without words, and what axe-core calls serious."""

import contextlib
import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

WIDTHS = [1280, 1440, 360]
COARSE = 1.95  # pixels of a picture for each pixel that it covers, at least
FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run']

OVERFLOW = """() => {
  const wide = e => e.offsetParent && e.scrollWidth > e.clientWidth + 1
  const found = [...document.querySelectorAll('main pre')].filter(wide)
    .map(e => 'code overflows: ' + e.textContent.trim().slice(0, 60))
  const root = document.documentElement
  if (root.scrollWidth > innerWidth)
    found.push(`the page scrolls sideways, ${root.scrollWidth} px`)
  return found
}"""
READ = """(coarse) => {
  const found = []
  for (const e of document.querySelectorAll('main .katex-error'))
    found.push('not a formula: ' + e.textContent.slice(0, 60))
  for (const e of document.querySelectorAll('main img')) {
    if (!e.offsetParent) continue
    const name = e.getAttribute('src').slice(-40)
    if (!e.naturalWidth) found.push('no picture: ' + name)
    else if (e.naturalWidth < coarse * e.clientWidth)
      found.push(`coarse: ${name}, ${(e.naturalWidth / e.clientWidth).toFixed(2)}`)
    if (e.alt.trim().length < 40) found.push('no words for a picture: ' + name)
  }
  const copy = document.querySelector('main').cloneNode(true)
  for (const e of copy.querySelectorAll('pre, code, script, style, .math, .katex'))
    e.remove()
  const source = /:::|\\]\\(|\\{[#.]|\\?@|@(eq|fig|tbl|sec)-|\\((eq|fig|tbl)-\\w|#\\| |\\$|\\\\\\w/
  const python = /<IPython|<Figure|tensor\\(/
  for (const line of copy.textContent.split('\\n'))
    if (source.test(line) || python.test(line))
      found.push('source shows: ' + line.trim().slice(0, 80))
  const ids = [...document.querySelectorAll('main [id]')].map(e => e.id)
  for (const id of new Set(ids.filter((x, i) => ids.indexOf(x) < i)))
    found.push('twice: #' + id)
  return found
}"""
UNFOLD = "() => document.querySelectorAll('details').forEach(e => e.open = true)"


def chromium() -> str | None:
    "The browser of this machine."
    names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
    return os.environ.get('CHROMIUM') or next(
        filter(None, map(shutil.which, names)), None
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    "The address of a folder."
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    "A browser without a window."
    with sync_playwright() as play:
        yield play.chromium.launch(executable_path=chromium(), args=FLAGS)


def serious(page) -> list[str]:
    "What axe-core calls serious or critical."
    marks = dict(exclude=[['.katex'], ['pre code']])  # thousands on a page, not ours
    tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']
    options = dict(resultTypes=['violations'], runOnly=tags)
    found = Axe().run(page, context=marks, options=options).response
    return [
        f'{v["id"]}: {v["nodes"][0]["html"][:100]} ({len(v["nodes"])})'
        for v in found['violations']
        if v['impact'] in ('serious', 'critical')
    ]


def look(chrome: Browser, url: str) -> list[str]:
    "What is wrong with one page."
    found = []
    page = chrome.new_page(viewport=dict(width=WIDTHS[0], height=900))

    def local(route):
        if urlsplit(route.request.url).hostname == '127.0.0.1':
            return route.continue_()
        found.append(f'another host: {route.request.url}')
        return route.abort()

    page.route(lambda u: not u.startswith(('data:', 'blob:')), local)
    page.on('pageerror', lambda e: found.append(f'script: {e}'))
    page.on('response', lambda r: r.ok or found.append(f'{r.status}: {r.url}'))
    page.goto(url, wait_until='load')
    page.evaluate(UNFOLD)
    found += page.evaluate(READ, COARSE)
    for width in WIDTHS:
        page.set_viewport_size(dict(width=width, height=900))
        found += [f'{width} px: {f}' for f in page.evaluate(OVERFLOW)]
    found += [f'light: {f}' for f in serious(page)]
    page.emulate_media(color_scheme='dark')
    page.reload(wait_until='load')
    page.evaluate(UNFOLD)
    found += [f'dark: {f}' for f in serious(page)]
    page.close()
    return list(dict.fromkeys(found))


def main() -> None:
    "Look at the pages that the command line names, or at all."
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, only = Path(sys.argv[1]), sys.argv[2:]
    paths = [folder / 'index.html', *sorted((folder / 'nbs').glob('*.html'))]
    count = 0
    with served(folder) as address, browser() as chrome:
        for path in paths:
            if only and path.stem not in only:
                continue
            for finding in look(chrome, f'{address}/{path.relative_to(folder)}'):
                print(f'{path.stem}: {finding}', flush=True)
                count += 1
    sys.exit(count > 0)


if __name__ == '__main__':
    main()
