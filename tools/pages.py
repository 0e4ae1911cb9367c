"""Write the home page of the book: python tools/pages.py [--check].

README.md, index.qmd and their pictures are made from nbs/index.ipynb; with `--check`
nothing is written, and files that are not what the notebook says are an error."""

import base64
import io
import json
import re
import sys
from pathlib import Path

from PIL import Image
from quarto_filter import STATE, VIEW, living

root = Path(__file__).resolve().parent.parent
THEMES = [
    'light',
    'dark',
]  # of the picture of README; the site shows the figure that moves


def directive(source, name):
    "The text of `#| name: \"…\"` in a cell, or nothing."
    found = re.search(rf'^#\| {name}: "(.*)"$', source, re.M)
    return found[1] if found else ''


def pictures(cell):
    "The PNG files that a cell shows, as bytes."
    data = [o.get('data', {}).get('image/png') for o in cell.get('outputs', [])]
    return [base64.b64decode(''.join(d)) for d in data if d]


def picture(source, name):
    "A picture for README, in the theme that the browser prefers."
    alt = directive(source, 'fig-alt')
    cap = directive(source, 'fig-cap')
    dark = 'media="(prefers-color-scheme: dark)"'
    return (
        f'<picture>\n<source {dark} srcset="site/{name}-dark.png">\n'
        f'<img src="site/{name}-light.png" alt="{alt}">\n</picture>\n\n*{cap}*'
    )


def figure(nb, cell):
    "The values of the figure that moves, which a cell shows, or nothing."
    state = nb['metadata'].get('widgets', {}).get(STATE, {}).get('state', {})
    views = [o['data'][VIEW] for o in cell['outputs'] if VIEW in o.get('data', {})]
    return state[views[0]['model_id']]['state'] if views else None


def body(nb, qmd):
    "Markdown cells, code as fences, what the code printed; hidden cells are left out."
    for c in nb['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            yield source
            continue
        if '#| hide' in source:
            continue
        if '#| echo: false' not in source:
            lines = [s for s in source.split('\n') if not s.startswith('#|')]
            yield '\n'.join(['```python', *lines, '```'])
        if pictures(c):
            yield from [] if qmd else [picture(source, label(source))]
            continue
        moving = figure(nb, c)
        if moving:
            cap = directive(source, 'fig-cap')
            told = f'\n\n[{cap}]{{.moving-caption}}' if cap else ''
            whole = living(moving, 'index').replace('../', '') + told
            yield from [whole] if qmd else []
            continue
        yield from printed(c)


def printed(cell):
    "What a cell printed: Markdown as it is, text as a fence."
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        markdown = ''.join(data.get('text/markdown', []))
        text = ''.join(o.get('text', data.get('text/plain', [])))
        yield markdown or f'```\n{text.rstrip()}\n```'


def label(source):
    "The name of a figure, which is also that of its files."
    return re.search(r'^#\| label: fig-(\w+)$', source, re.M)[1]


HIDE_TITLE = '''
```{=html}
<style>#title-block-header { display: none; }</style>
```
'''  # the book's own, which would say the same above the picture
NOTE = '<!-- made from nbs/index.ipynb by tools/pages.py -->'


def render(nb, qmd):
    "The text of index.qmd or of README.md."
    text = re.sub(r'\]\((\w+)\.ipynb\)', r'](nbs/\1.ipynb)', '\n\n'.join(body(nb, qmd)))
    if not qmd:
        return f'{NOTE}\n\n{text}\n'
    title, line, rest = re.match(r'# (.+?)\n+> (.+?)\n(.*)', text, re.S).groups()
    head = f'---\npagetitle: "{title}"\ndescription: "{line}"\nimage: site/card.png\n---\n\n{NOTE}'
    return f'{head}\n{HIDE_TITLE}\n# {title} {{.unnumbered}}\n\n[{line}]{{.lead}}\n{rest}\n'


def card(png):
    "A picture on white ground in the size that other sites show beside a link."
    inside = Image.open(io.BytesIO(png)).convert('RGBA')
    inside.thumbnail((1140, 570))
    whole = Image.new('RGBA', (1200, 630), 'white')
    place = [(w - i) // 2 for w, i in zip(whole.size, inside.size)]
    whole.alpha_composite(inside, tuple(place))
    out = io.BytesIO()
    whole.convert('RGB').quantize(128).save(out, 'png', optimize=True)
    return out.getvalue()


def files():
    "Path → bytes of everything that is made from the notebook."
    nb = json.loads((root / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))
    made = {
        root / name: render(nb, name == 'index.qmd').encode()
        for name in ['README.md', 'index.qmd']
    }
    for c in nb['cells']:
        for theme, png in zip(THEMES, pictures(c)):
            name = label(''.join(c['source']))
            made[root / 'site' / f'{name}-{theme}.png'] = png
    return made


def main():
    "Write what has changed, or only name it."
    stale = {
        path: data
        for path, data in files().items()
        if not path.exists() or path.read_bytes() != data
    }
    if '--check' not in sys.argv:
        for path, data in stale.items():
            path.write_bytes(data)
            if path.name == 'home-light.png':
                path.with_name('card.png').write_bytes(card(data))
    elif stale:
        names = ', '.join(p.name for p in stale)
        sys.exit(f'{names}: not what nbs/index.ipynb says; run python tools/pages.py')


if __name__ == '__main__':
    main()
