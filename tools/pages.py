"Write README.md, index.qmd and their pictures from nbs/index.ipynb, the home page of the book: python tools/pages.py [--check]"

import base64
import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
THEMES = ['light', 'dark']  # a cell with two pictures shows one for each


def directive(source, name):
    "The text of `#| name: \"…\"` in a cell, or nothing."
    found = re.search(rf'^#\| {name}: "(.*)"$', source, re.M)
    return found[1] if found else ''


def pictures(cell):
    "The PNG files that a cell shows, as bytes."
    data = [o.get('data', {}).get('image/png') for o in cell.get('outputs', [])]
    return [base64.b64decode(''.join(d)) for d in data if d]


def picture(source, name, qmd):
    "A picture in two themes: for the site by its classes, for README by what the browser prefers."
    alt, cap = directive(source, 'fig-alt'), directive(source, 'fig-cap')
    if not qmd:
        return (
            f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="site/{name}-dark.png">\n'
            f'<img src="site/{name}-light.png" alt="{alt}">\n</picture>\n\n*{cap}*'
        )
    shown = '\n'.join(
        f'![](site/{name}-{t}.png){{.{t}-content fig-alt="{alt}"}}' for t in THEMES
    )
    return f'::: {{.home-picture}}\n{shown}\n\n{cap}\n:::'


def body(nb, qmd):
    "Markdown cells, code as fences, what the code printed; hidden cells are left out."
    for c in nb['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            yield source
            continue
        if '#| hide' in source:
            continue
        shown = '\n'.join(
            line for line in source.split('\n') if not line.startswith('#|')
        )
        if '#| echo: false' not in source:
            yield f'```python\n{shown}\n```'
        if pictures(c):
            yield picture(source, label(source), qmd)
            continue
        for o in c.get('outputs', []):
            data = o.get('data', {})
            text = ''.join(data.get('text/markdown', [])) or ''.join(
                o.get('text', data.get('text/plain', []))
            )
            yield text if 'text/markdown' in data else f'```\n{text.rstrip()}\n```'


def label(source):
    return re.search(r'^#\| label: fig-(\w+)$', source, re.M)[1]


NOTE = '<!-- made from nbs/index.ipynb by tools/pages.py -->'


def render(nb, qmd):
    "The text of index.qmd or of README.md."
    text = re.sub(r'\]\((\w+)\.ipynb\)', r'](nbs/\1.ipynb)', '\n\n'.join(body(nb, qmd)))
    if not qmd:
        return f'{NOTE}\n\n{text}\n'
    title, line, rest = re.match(r'# (.+?)\n+> (.+?)\n(.*)', text, re.S).groups()
    return f'---\npagetitle: "{title}"\ndescription: "{line}"\n---\n\n{NOTE}\n\n# {line} {{.unnumbered}}\n{rest}\n'


def files():
    "Path → bytes of everything that is made from the notebook."
    nb = json.loads((root / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))
    made = {
        root / name: render(nb, name == 'index.qmd').encode()
        for name in ['README.md', 'index.qmd']
    }
    for c in nb['cells']:
        for theme, png in zip(THEMES, pictures(c)):
            made[root / 'site' / f'{label("".join(c["source"]))}-{theme}.png'] = png
    return made


if __name__ == '__main__':
    stale = {
        path: data
        for path, data in files().items()
        if not path.exists() or path.read_bytes() != data
    }
    if '--check' not in sys.argv:
        for path, data in stale.items():
            path.write_bytes(data)
    elif stale:
        sys.exit(
            f'{", ".join(p.name for p in stale)}: not what nbs/index.ipynb says; run python tools/pages.py'
        )
