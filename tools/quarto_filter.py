"""Quarto's notebook filter: a notebook on stdin, the page of it on stdout.

A book shows its code: exported cells appear as they are, with an anchor for each name,
instead of the summary that nbdev would put in their place. A figure that moves brings its
module along, and a still for a book on paper. Forms that read well in Jupyter become
Quarto's (`tools/forms.py`), and code names an equation by its number. Then nbdev's own
processors run (hidden cells, links from back-ticks), and links and references are mended."""

import ast
import base64
import colorsys
import functools
import html
import io
import json
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import yaml
from execnb.nbio import dict2nb, nb2str
from forms import to_quarto
from matplotlib import colormaps
from nbdev.config import get_config
from nbdev.processors import FilterDefaults, exec_show_docs
from PIL import Image
from scipy import ndimage

GROUND = 0.133  # lightness of the dark theme


@functools.cache
def pages():
    "Name of a module → its page: nbdev drops the number of a page, a book keeps it."
    found = Path().glob('[0-9]*.ipynb')
    return {re.sub(r'^\d+[a-z]*_', '', p.stem): p.stem for p in found}


def mend(text, own):
    "Point nbdev's links at pages of the book; make `Eq. (eq-x)` of docstrings references."
    text = re.sub(
        r'/nbs/(\w+)\.html', lambda m: f'{pages().get(m[1], m[1])}.html', text
    )
    text = text.replace('](index.ipynb', '](../index.qmd')  # the home page
    parts = re.split(r'(^```.*?^```$)', text, flags=re.S | re.M)  # code between fences
    for i, part in enumerate(parts):
        if part.startswith('```'):
            parts[i] = numbered(part, own)
        else:
            part = re.sub(r'(?<=\d) ± (?=\d)', '\u00a0±\u00a0', part)  # on one line
            parts[i] = re.sub(r'Eq\. \((eq-[\w-]+)\)', r'@\1', part)
    return ''.join(parts)


def equations(cells):
    "Labels of a notebook's equations, in the order in which Quarto counts them."
    texts = (''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    return [k for t in texts for k in re.findall(r'\{#(eq-[\w-]+)\}', to_quarto(t))]


@functools.cache
def places():
    "Where each equation of the book stands: the title of its page, and its number there."
    found = {}
    for path in sorted(Path().glob('[0-9]*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        title = next(
            ''.join(c['source']).split('\n')[0].removeprefix('# ')
            for c in cells
            if c['cell_type'] == 'markdown'
        )
        for k, label in enumerate(equations(cells), 1):
            found[label] = title, k
    return found


def numbered(source, own):
    "Code with the numbers that equations have on the page, or elsewhere in the book."

    def number(match):
        label = match[1]
        if label in own:
            return f'Eq. ({own.index(label) + 1})'
        if label not in places():
            return match[0]
        title, k = places()[label]
        return f'Eq. ({k}) of {title}'

    return re.sub(r'Eq\. \((eq-[\w-]+)\)(?: of chapter \w+)?', number, source)


def values(node):
    "The names that an assignment gives to values."
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def names(source):
    "Anchors of what a cell defines, methods by `@patch` too, as nbdev's links name them."
    for node in ast.parse(source).body:
        yield from (value.lower() for value in values(node) if value[0] != '_')
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        patched = any(getattr(d, 'id', '') == 'patch' for d in node.decorator_list)
        owner = f'{node.args.args[0].annotation.id}.' if patched else ''
        yield f'{owner}{node.name}'.lower()
        for part in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(part, ast.FunctionDef) and part.name[0] != '_':
                yield f'{node.name}.{part.name}'.lower()


def only_imports(source):
    "Whether a cell does nothing but import, perhaps for the type checker alone."

    def imports(node):
        if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING':
            return all(map(imports, node.body))
        return isinstance(node, (ast.Import, ast.ImportFrom))

    return all(map(imports, ast.parse(source).body))


def show_exports(cells):
    "Yield the cells with exported code shown: imports are dropped, names get anchors."
    taken = set()
    for c in cells:
        directive = re.match(r'#\| ?(exporti?|exports)\b.*\n', c['source'])
        if c['cell_type'] != 'code' or not directive:
            yield c
            continue
        source = c['source'][directive.end() :]
        if only_imports(source):
            continue
        new = dict.fromkeys(name for name in names(source) if name not in taken)
        taken.update(new)
        anchors = ' '.join(f'[]{{#{name}}}' for name in new)
        if anchors:
            yield dict(
                cell_type='markdown', id=f"a{c['id']}", metadata={}, source=anchors
            )
        yield {**c, 'source': source}


VIEW = 'application/vnd.jupyter.widget-view+json'
STATE = 'application/vnd.jupyter.widget-state+json'


def as_html(figure, name):
    "A figure that moves, as HTML: its state, its still, and the module that draws it."
    where = f'w-{name}-{figure["name"]}'
    state = json.dumps(figure['state'], ensure_ascii=False, separators=(',', ':'))
    state = state.replace('</', '<\\/')
    alt = html.escape(figure['alt'], quote=True)
    module = figure['_esm'].replace('export default widget', '')
    return f"""<div class="moving" id="{where}" data-files="../site/models/">
<img src="../site/stills/{name}-{figure['name']}.png" alt="{alt}" width="640">
<script type="application/json">{state}</script>
</div>
<script type="module">
{module}
mount(document.getElementById('{where}'), widget)
</script>"""


def living(figure, name):
    "A figure that moves for the site, and its still for a book on paper."
    alt = figure['alt'].replace('"', "'")
    where = f'{name}-{figure["name"]}'
    still = f'![](../site/stills/{where}.png){{fig-alt="{alt}"}}'
    return f"""::: {{.content-visible when-format="html:js"}}
```{{=html}}
{as_html(figure, name)}
```
:::

::: {{.content-visible unless-format="html:js"}}
::: {{#w-{where}}}
{still}
:::
:::"""


def replace_widgets(nb, name):
    "No widget is left on the page, and so no script of another host."
    state = nb['metadata'].pop('widgets', {}).get(STATE, {}).get('state', {})
    for c in nb['cells']:
        shown = [
            o['data'][VIEW] for o in c.get('outputs', []) if VIEW in o.get('data', {})
        ]
        if not shown:
            yield c
            continue
        source = living(state[shown[0]['model_id']]['state'], name)
        yield {**c, 'outputs': []}
        yield dict(cell_type='markdown', id=f's{c["id"]}', metadata={}, source=source)


def links(path):
    "Under a page's title: an anchor for links on paper, and the notebook to run or keep."
    name, url = path.name, get_config().git_url
    host = url.replace('github.com', 'colab.research.google.com/github')
    colab = f'[Open in Colab]({host}/blob/main/nbs/{name})'
    own = f'`<a href="{name}?download" download="{name}">Download the notebook</a>`'
    source = f"""[]{{#page-{path.stem}}}

::: {{.content-visible when-format="html:js"}}
::: {{.page-links}}
{own}{{=html}} · {colab}
:::
:::"""
    return dict(cell_type='markdown', id='page-links', metadata={}, source=source)


def night(r, g, b):
    "A colour for dark ground: the same hue, white as the ground, black as white."
    h, lightness, s = colorsys.rgb_to_hls(r / 255, g / 255, b / 255)
    turned = GROUND + (1 - GROUND) * (1 - lightness)
    vivid = np.clip((max(r, g, b) - min(r, g, b)) / 51 - 1, 0, 1)  # a line, not a tint
    turned += vivid * max(0, lightness - turned)  # and no darker than it was
    return [round(255 * v) for v in colorsys.hls_to_rgb(h, turned, s)]


def at_night(png):
    "A picture for dark ground, or None: photographs and pictures that move stay."
    image = Image.open(io.BytesIO(png))
    if getattr(image, 'n_frames', 1) > 1:
        return None
    pixels = np.asarray(image.convert('RGB'))
    if (pixels > 250).all(-1).mean() < 0.3 or thick((pixels < 40).all(-1)).any():
        return None
    image = image.convert('RGB').quantize(256, dither=Image.Dither.NONE)
    palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    turned = np.array([night(*map(int, color)) for color in palette], np.uint8)
    places = np.asarray(image)
    pixels = turned[places]
    for box in heat_maps(places, palette):
        pixels[box] = palette[places[box]]
    image = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, 'png', optimize=True)
    return out.getvalue()


def thick(mask):
    "What of a mask is no line, dot or letter."
    return ndimage.grey_opening(mask.astype(np.uint8), 17) > 0


def heat_maps(places, palette):
    "The boxes of a picture with maps of a density, which are dark where it is low."
    scale = 255 * np.array(colormaps['viridis'].colors)
    near = np.abs(palette[:, None] - scale).max(-1).min(-1) < 10
    mask = thick(near[places])
    boxes = ndimage.find_objects(ndimage.label(mask)[0])
    return [box for box in boxes if mask[box].mean() > 0.5]


FIGURE = re.compile(r'^#\| ?(label|fig-cap|fig-alt): *(.*)\n', re.M)


def themed(c, output, dark):
    "A cell with a figure as its code, and the figure for light and for dark ground."
    told = {k: yaml.safe_load(v) for k, v in FIGURE.findall(c['source'])}
    width = output['metadata'].get('image/png', {}).get('width')
    alt = told['fig-alt'].replace('"', "'")
    size = f' width={width}' if width else ''
    by_day, by_night = (
        f'::: {{.{k}-content}}\n![](attachment:{k}.png){{fig-alt="{alt}"{size}}}\n:::\n'
        for k in ('light', 'dark')
    )
    inside = f"""{by_day}
:::: {{.content-visible when-format="html:js"}}
{by_night}::::

{told['fig-cap']}"""
    data = dict(light=output['data']['image/png'], dark=base64.b64encode(dark).decode())
    yield {**c, 'source': FIGURE.sub('', c['source']), 'outputs': []}
    yield dict(
        cell_type='markdown',
        id=f'f{c["id"]}',
        metadata={},
        source=f'::::: {{#{told["label"]}}}\n{inside}\n:::::',
        attachments={f'{k}.png': {'image/png': v} for k, v in data.items()},
    )


def for_both_grounds(cells):
    "Yield the cells with a second picture of each figure that is white."
    for c in cells:
        pngs = [o for o in c.get('outputs', []) if 'image/png' in o.get('data', {})]
        alone = len(pngs) == len(c.get('outputs', [])) == 1
        named = alone and {'label', 'fig-cap', 'fig-alt'} <= {
            k for k, _ in FIGURE.findall(c['source'])
        }
        png = ''.join(pngs[0]['data']['image/png']) if named else ''
        dark = at_night(base64.b64decode(png)) if named else None
        if dark:
            pngs[0]['data']['image/png'] = png.replace('\n', '')
            yield from themed(c, pngs[0], dark)
        else:
            yield c


FOLD = re.compile(r'^#\| ?code-(?:fold: *true|summary: *(.*))\n', re.M)
ANCHORS = re.compile(r'(\[\]\{#[\w.]+\} ?)+')


def called(cells):
    "What the summaries of folded cells say, beyond that there is code."
    found = [yaml.safe_load(s) for c in cells for s in FOLD.findall(c.source) if s]
    return [s for s in found if s not in ('Code', 'Imports')]


def one_fold(cells):
    "Folded cells that follow one another, as one cell in a list."
    if len(cells) < 2:
        return cells
    summary = (called(cells) or ['Code'])[0]
    *before, last = [FOLD.sub('', c.source) for c in cells]
    options = re.match(r'(#\|.*\n)*', last)[0]
    code = '\n\n'.join([*before, last[len(options) :]])
    head = f'#| code-fold: true\n#| code-summary: {json.dumps(summary)}\n'
    cells[-1].source = head + options + code
    return cells[-1:]


def few_folds(cells):
    "Yield the cells; of folds in a row, anchors aside, each has a name that tells it apart."
    row = []
    for c in cells:
        folded = bool(FOLD.search(c.source))
        ends = len(called([*row, c])) > 1 if folded else not ANCHORS.fullmatch(c.source)
        if ends:
            yield from one_fold(row)
            row = []
        if not folded:
            yield c
            continue
        row.append(c)
        if c.outputs:
            yield from one_fold(row)
            row = []
    yield from one_fold(row)


class Pages(FilterDefaults):
    "nbdev's processors but the one that runs cells again: no page calls `show_doc`."

    def base_procs(self):
        return [p for p in super().base_procs() if p is not exec_show_docs]


def page(text):
    "The notebook `text` as Quarto should see it."
    os.environ['IN_TEST'] = '1'
    nb = json.loads(text)
    for c in nb['cells']:
        c['source'] = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            c['source'] = to_quarto(c['source'])
    own = equations(nb['cells'])
    for c in nb['cells']:
        if c['cell_type'] == 'code':
            c['source'] = numbered(c['source'], own)
    notebooks = Path().glob('*.ipynb')  # Quarto runs us in their folder
    path = next(p for p in notebooks if p.read_text(encoding='utf-8') == text)
    nb['cells'] = list(replace_widgets(nb, path.stem))
    nb['cells'] = list(for_both_grounds(nb['cells']))
    nb['cells'] = list(show_exports(nb['cells']))
    first = next(i for i, c in enumerate(nb['cells']) if c['cell_type'] == 'markdown')
    nb['cells'].insert(first + 1, links(path))
    nb = dict2nb(nb)
    nb['path_'] = str(path)
    with redirect_stdout(sys.stderr):
        Pages()(nb)
    nb.cells = list(few_folds(nb.cells))
    # an empty state of widgets is enough for Quarto to fetch scripts
    nb.metadata.pop('widgets', None)
    for c in nb.cells:
        if c.cell_type == 'markdown':
            c.source = mend(c.source, own)
        for o in c.get('outputs', []):
            data = o.get('data', {})
            if 'text/markdown' in data:
                shown = to_quarto(''.join(data['text/markdown']))
                data['text/markdown'] = mend(shown, own)
    return nb2str(nb)


if __name__ == '__main__':
    print(page(sys.stdin.read()), flush=True)
