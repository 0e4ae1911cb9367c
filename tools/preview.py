"""Build the pages of the book without Quarto: python tools/preview.py FOLDER [PAGE …].

Each notebook goes through Quarto's notebook filter (`tools/quarto_filter.py`) and then
through pandoc, with citations; numbers, references and boxes are made here. Pages have
the names, ids, classes, style sheet and widths of the site, so that a browser shows what
a reader will see, but for the furniture around it. What does not resolve is printed."""

import base64
import contextlib
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pypandoc
import yaml
from quarto_filter import page as filtered

ROOT = Path(__file__).resolve().parent.parent
KINDS = dict(eq='Equation', fig='Figure', tbl='Table', sec='Section')
MARKDOWN = 'markdown-implicit_figures'
OPTION = re.compile(r'#\| ?([\w-]+): *(.*)')


@dataclass
class Page:
    "A page of the book on its way from text to HTML."

    name: str  # such as `nbs/05_train`
    title: str
    text: str  # Markdown
    description: str = ''
    files: dict = field(default_factory=dict)  # name → bytes
    tree: dict = field(default_factory=dict)  # pandoc's
    labels: dict = field(
        default_factory=dict
    )  # of equations, figures, tables, sections
    problems: list = field(default_factory=list)

    @property
    def path(self):
        return f'{self.name}.html'


def chapters():
    "The files of the book in the order of `_quarto.yml`, with the part that each is in."
    book = yaml.safe_load((ROOT / '_quarto.yml').read_text(encoding='utf-8'))['book']
    for entry in book['chapters']:
        if isinstance(entry, str):
            yield '', entry
            continue
        for chapter in entry['chapters']:
            yield entry['part'], chapter


# From a notebook to Markdown.


def options(source):
    "The `#|` options of a cell, and its other lines."
    found, lines = {}, source.split('\n')
    while lines and (match := OPTION.match(lines[0])):
        found[match[1]] = yaml.safe_load(match[2])
        lines.pop(0)
    return found, '\n'.join(lines)


def fence(text, attributes):
    "A block of code."
    return f'```` {{{attributes}}}\n{text}\n````'


def raw(html):
    "HTML that pandoc leaves alone."
    return f'```{{=html}}\n{html}\n```'


def captioned(inside, label, caption, tag):
    "A figure or a table with its caption."
    kind = label.split('-')[0]
    order = ['CAPTION', inside] if kind == 'tbl' else [inside, 'CAPTION']
    text = f'[]{{.caption-number ref="{label}"}} {caption}'
    full = f'{raw(f"<{tag}>")}\n\n{text}\n\n{raw(f"</{tag}>")}'
    body = '\n\n'.join(full if part == 'CAPTION' else part for part in order)
    return f'::: {{#{label} .quarto-float}}\n{body}\n:::'


def shown(output, name, found, files):
    "What Quarto makes of one output of a cell."
    data = output.get('data', {})
    if 'image/png' in data:
        files[name] = base64.b64decode(''.join(data['image/png']))
        alt = escape(str(found.get('fig-alt', '')), quote=True)
        width = output.get('metadata', {}).get('image/png', {}).get('width')
        size = f' width={width}' if width else ''
        return f'![]({name}){{.figure-img alt="{alt}"{size}}}'
    if 'text/markdown' in data:
        return ''.join(data['text/markdown'])
    text = ''.join(output.get('text', data.get('text/plain', '')))
    return fence(text.rstrip('\n'), '.cell-output') if text.strip() else ''


def code_cell(cell, stem, files):
    "A code cell and its outputs."
    found, source = options(''.join(cell['source']))
    made = []
    if found.get('echo', True) and source.strip():
        code = fence(source.strip('\n'), '.python .cell-code')
        if found.get('code-fold'):
            summary = escape(str(found.get('code-summary', 'Code')))
            start = raw(f'<details class="code-fold"><summary>{summary}</summary>')
            code = f'{start}\n\n{code}\n\n{raw("</details>")}'
        made.append(code)
    outputs = [
        shown(o, f'{stem}_files/{cell["id"]}-{i}.png', found, files)
        for i, o in enumerate(cell.get('outputs', []))
    ]
    inside = '\n\n'.join(o for o in outputs if o)
    label = str(found.get('label', ''))
    if inside and label.startswith(('fig-', 'tbl-')):
        kind = label[:3]
        caption = found.get(f'{kind}-cap', '')
        tag = 'figcaption'
        inside = captioned(inside, label, caption, tag)
    return '\n\n'.join([*made, inside])


def attachments(cell, stem, files):
    "A Markdown cell with its attached pictures as files."
    text = ''.join(cell['source'])
    for name, data in cell.get('attachments', {}).items():
        path = f'{stem}_files/{cell["id"]}-{name}'
        files[path] = base64.b64decode(data['image/png'])
        text = text.replace(f'attachment:{name}', path)
    return text.replace('fig-alt=', 'alt=')


def from_notebook(path):
    "The page of a notebook."
    with contextlib.chdir(path.parent):
        nb = json.loads(filtered(path.read_text(encoding='utf-8')))
    head = yaml.safe_load(''.join(nb['cells'][0]['source']).strip().strip('-'))
    files = {}
    parts = [
        code_cell(c, path.stem, files)
        if c['cell_type'] == 'code'
        else attachments(c, path.stem, files)
        for c in nb['cells'][1:]
    ]
    return Page(
        path.relative_to(ROOT).with_suffix('').as_posix(),
        head['title'],
        '\n\n'.join(parts),
        head.get('description', ''),
        files,
    )


def from_text(path):
    "The page of a Markdown file with a head."
    text = path.read_text(encoding='utf-8')
    head = yaml.safe_load(text.split('---')[1])
    body = text.split('---', 2)[2].replace('fig-alt=', 'alt=')
    title = head.get('pagetitle') or head['title']
    return Page(path.stem, title, body, head.get('description', ''))


# Pandoc's tree: labels, references, boxes.


def walk(node, change):
    "Each list of blocks or inlines in a tree, changed by `change`, the inner ones first."
    if isinstance(node, dict):
        return {k: walk(v, change) for k, v in node.items()}
    if not isinstance(node, list):
        return node
    inside = [walk(v, change) for v in node]
    tagged = inside and all(isinstance(v, dict) and 't' in v for v in inside)
    return change(inside) if tagged else inside


def span(identifier, classes, inside):
    return {'t': 'Span', 'c': [[identifier, classes, []], inside]}


def html(text):
    return {'t': 'RawBlock', 'c': ['html', text]}


def plain(inlines):
    "The words of some inlines."
    words = {'Space': ' ', 'SoftBreak': ' '}
    texts = []
    walk(
        inlines,
        lambda row: (
            texts.extend(
                words.get(v['t'], v.get('c') if v['t'] == 'Str' else '') for v in row
            )
            or row
        ),
    )
    return ''.join(texts)


def number(page):
    "Give equations, figures, tables and sections of a page their numbers."
    counts = dict.fromkeys(KINDS, 0)

    def note(label, text=None):
        kind = label.split('-')[0]
        if kind in counts and label not in page.labels:
            counts[kind] += 1
            page.labels[label] = text or f'{KINDS[kind]} {counts[kind]}'

    def change(row):
        made = []
        for v in row:
            label = re.fullmatch(r'\{#(eq-[\w-]+)\}(.*)', v['c']) if is_str(v) else None
            math = next((m for m in made[-2:] if m['t'] == 'Math'), None)
            if label and math:
                note(label[1])
                tag = page.labels[label[1]].split()[1]
                math['c'] = [math['c'][0], f'{math["c"][1].rstrip()} \\tag{{{tag}}}']
                made[-1:] = [] if made[-1]['t'] == 'Space' else made[-1:]
                made[-1] = span(label[1], ['equation'], [made[-1]])
                continue
            if v['t'] == 'Header' and v['c'][1][0].startswith('sec-'):
                note(v['c'][1][0], plain(v['c'][2]))
            made.append(v)
        return made

    page.tree['blocks'] = walk(page.tree['blocks'], change)

    def floats(row):  # from the outside in, as they stand
        for v in row:
            if v['t'] in ('Div', 'Table'):
                note(v['c'][0][0])
        return row

    walk(page.tree['blocks'], floats)


def is_str(node):
    return node['t'] == 'Str'


def resolve(page, book):
    "Replace references by links, and boxes by what HTML has for them."
    places = {k: (p.path, t) for p in book for k, t in p.labels.items()}

    def reference(label, page_text=None):
        if label not in places:
            page.problems.append(f'no such label: {label}')
            return {'t': 'Str', 'c': f'?@{label}'}
        path, text = places[label]
        target = os.path.relpath(path, Path(page.path).parent)
        inside = [{'t': 'Str', 'c': text}]
        attributes = ['', ['quarto-xref'], []]
        return {'t': 'Link', 'c': [attributes, inside, [f'{target}#{label}', '']]}

    def change(row):
        return [changed for v in row for changed in one(v)]

    def one(v):
        if v['t'] == 'Cite':
            labels = [c['citationId'] for c in v['c'][0]]
            if labels[0].split('-')[0] in KINDS:
                return [reference(labels[0])]
        if v['t'] == 'Span' and 'caption-number' in v['c'][0][1]:
            label = dict(v['c'][0][2])['ref']
            return [{'t': 'Str', 'c': f'{page.labels[label]}:'}]
        if v['t'] == 'Link':
            attributes, inside, (target, title) = v['c']
            target = re.sub(r'^(?!\w+:)([\w./-]*)\.(ipynb|qmd)', r'\1.html', target)
            return [{'t': 'Link', 'c': [attributes, inside, [target, title]]}]
        if v['t'] == 'Div' and 'unless-format' in dict(v['c'][0][2]):
            return []
        if v['t'] == 'Div' and v['c'][0][0].startswith('fig-') and not v['c'][0][1]:
            caption = {'t': 'Str', 'c': f'{page.labels[v["c"][0][0]]}: '}
            v['c'][1][-1]['c'].insert(0, caption)
        if v['t'] == 'Div' and v['c'][0][1] and v['c'][0][1][0].startswith('callout'):
            return box(*v['c'])
        return [v]

    page.tree['blocks'] = walk(page.tree['blocks'], change)


def box(attributes, blocks):
    "A callout as a box that can be folded, or as one that cannot."
    identifier, classes, pairs = attributes
    title = plain(blocks[0]['c'][2]) if blocks[0]['t'] == 'Header' else ''
    inside = blocks[1:] if title else blocks
    if dict(pairs).get('collapse') == 'true':
        start = (
            f'<details class="callout {classes[0]}"><summary>{escape(title)}</summary>'
        )
        return [html(start), *inside, html('</details>')]
    head = html(f'<p class="callout-title">{escape(title)}</p>')
    whole = [[identifier, ['callout', *classes], []], [head, *inside]]
    return [{'t': 'Div', 'c': whole}]


# From the tree to a page.


def style():
    "The style sheet: that of the page around it, and the rules of the site's theme."
    theme = (ROOT / 'site' / 'theme.scss').read_text(encoding='utf-8')
    rules = theme.split('/*-- scss:rules --*/')[1]
    rules = re.sub(r'(^|\s)//.*', r'\1', rules)
    return (ROOT / 'site' / 'preview.css').read_text(encoding='utf-8') + rules


SHELL = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><meta name="description" content="{description}">
<link rel="stylesheet" href="{up}site/katex/katex.min.css">
<link rel="stylesheet" href="{up}style.css">
<script defer src="{up}site/katex/katex.min.js"></script>
<script>
matchMedia('(prefers-color-scheme: dark)').matches &&
  document.documentElement.classList.add('dark')
addEventListener('DOMContentLoaded', () => {{
  document.body.classList.add(document.documentElement.classList.contains('dark')
    ? 'quarto-dark' : 'quarto-light')
  for (const m of document.querySelectorAll('span.math'))
    katex.render(m.textContent, m, {{displayMode: m.classList.contains('display'),
      throwOnError: false, fleqn: false}})
}})
</script></head>
<body><div id="quarto-content">
<nav id="quarto-sidebar" aria-label="Chapters">{chapters}</nav>
<main class="content" id="quarto-document-content">
{title_block}
{body}
</main>
<nav id="TOC" aria-label="On this page">{contents}</nav>
</div>{after}</body></html>
"""


def contents(tree):
    "Links to the second-level headings."
    heads = [b['c'] for b in tree['blocks'] if b['t'] == 'Header' and b['c'][0] == 2]
    links = (f'<a href="#{h[1][0]}">{escape(plain(h[2]))}</a>' for h in heads)
    return '\n'.join(links)


def navigation(page, book):
    "Links to all pages."
    start = Path(page.path).parent
    links = (
        f'<a href="{os.path.relpath(p.path, start)}">{escape(p.title)}</a>'
        for p in book
    )
    return '\n'.join(links)


def whole(page, book):
    "The HTML of a page."
    arguments = ['--katex', '--citeproc', f'--bibliography={ROOT / "references.bib"}']
    arguments += ['--metadata=link-citations:true']
    text = json.dumps(page.tree)
    body = pypandoc.convert_text(text, 'html', 'json', extra_args=arguments)
    missing = re.findall(r'<strong>([\w-]+)\?</strong>', body)
    page.problems += [f'no such citation: {k}' for k in missing]
    title = f'<h1 class="title">{escape(page.title)}</h1>'
    return SHELL.format(
        title=escape(page.title),
        description=escape(page.description, quote=True),
        up='../' * page.name.count('/'),
        chapters=navigation(page, book),
        title_block='' if page.name == 'index' else f'<header>{title}</header>',
        body=body,
        contents=contents(page.tree),
        after=(ROOT / 'site' / 'page.html').read_text(encoding='utf-8'),
    )


def read():
    "All pages of the book, with pandoc's trees and with numbers."
    book = []
    for _, name in chapters():
        path = ROOT / name
        page = (from_notebook if path.suffix == '.ipynb' else from_text)(path)
        text = pypandoc.convert_text(page.text, 'json', MARKDOWN)
        page.tree = json.loads(text)
        number(page)
        book.append(page)
    return book


def build(folder, only=()):
    "Write the pages into `folder`; return them with their problems."
    folder = Path(folder)
    book = read()
    shutil.copytree(ROOT / 'site', folder / 'site', dirs_exist_ok=True)
    (folder / 'style.css').write_text(style(), encoding='utf-8')
    for page in book:
        if only and Path(page.name).name not in only:
            continue
        resolve(page, book)
        target = folder / page.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(whole(page, book), encoding='utf-8')
        for name, data in page.files.items():
            file = target.parent / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
    return book


def main():
    "Build what the command line asks for."
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    book = build(sys.argv[1], sys.argv[2:])
    for page in book:
        for problem in page.problems:
            print(f'{page.name}: {problem}')


if __name__ == '__main__':
    main()
