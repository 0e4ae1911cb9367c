"""The site as a reader meets it, built without Quarto and opened in a browser."""

import base64
import io
import json
import os
import re
import sys
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pypandoc
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from flowbook.figures import COLORS
from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import look
import preview
from execnb.nbio import dict2nb
from quarto_filter import at_night, few_folds, night, only_imports

NAMES = [Path(name).stem for _, name in preview.chapters()]
PAPER = ROOT / 'tools' / 'paper.lua'
KEYS = dict(  # of `_quarto.yml`: Quarto is silent about one that it does not know
    top='project book website crossref bibliography ipynb-filters execute format',
    project='type output-dir resources',
    book="""title subtitle author chapters site-url repo-url repo-actions favicon image
    open-graph twitter-card search page-navigation page-footer""",
    website='llms-txt',
    html="""theme respect-user-color-scheme grid toc number-sections html-math-method
    code-copy code-overflow lightbox include-after-body link-external-newwindow""",
)


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The folder of the built pages, and a line for each problem; processes share them."
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'site'
    report = folder.with_suffix('.txt')
    with FileLock(f'{folder}.lock'):
        if not report.exists():
            book = preview.build(folder)
            lines = [f'{p.name}: {problem}' for p in book for problem in p.problems]
            report.write_text('\n'.join(lines), encoding='utf-8')
    return folder, report.read_text(encoding='utf-8').splitlines()


class Seen(HTMLParser):
    "What a page links to, what it loads, and its anchors."

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.ids = [], [], {''}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[k] for k in ('id', 'name') if given.get(k)}
        if tag == 'a' and 'href' in given:
            self.links.append(given['href'])
        loads = given.get('src') or (tag == 'link' and given.get('href'))
        if loads:
            self.loads.append(loads)


@pytest.fixture(scope='session')
def seen(site):
    folder, _ = site
    return {
        path.relative_to(folder).as_posix(): Seen(path.read_text(encoding='utf-8'))
        for path in [folder / 'index.html', *(folder / 'nbs').glob('*.html')]
    }


def test_every_chapter_has_a_page(seen):
    assert {Path(name).stem for name in seen} == set(NAMES)


def test_every_reference_and_citation_resolves(site):
    assert site[1] == []


def test_every_link_within_the_site_leads_somewhere(seen):
    wrong = []
    for name, page in seen.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.query == 'download':
                continue
            where = os.path.normpath(Path(name).parent / unquote(parts.path))
            target = seen.get(where if parts.path else name)
            if target is None or unquote(parts.fragment) not in target.ids:
                wrong.append(f'{name}: {link}')
    assert wrong == []


def test_no_page_loads_anything_from_another_host(seen):
    foreign = [(n, u) for n, p in seen.items() for u in p.loads if urlsplit(u).netloc]
    assert foreign == []


def test_pages_are_light(site, seen):
    folder, _ = site
    for name, page in seen.items():
        files = [(folder / name).parent / u for u in page.loads if '_files/' in u]
        heavy = [f.name for f in files if f.stat().st_size > 150 * 1024]
        assert not heavy, f'{name}: {heavy}'
        whole = sum(f.stat().st_size for f in [folder / name, *files])
        assert whole < 1.5e6, f'{name}: {whole / 1e6:.1f} MB'


@pytest.mark.parametrize('name', NAMES)
def test_a_reader_minds_nothing(name, site):
    "In a browser: `tools/look.py` says what is looked at."
    if not look.chromium():
        pytest.skip('no Chromium on this machine: the pages were NOT opened')
    folder, _ = site
    path = next(p for p in folder.rglob('*.html') if p.stem == name)
    with look.served(folder) as address, look.browser() as chrome:
        assert look.look(chrome, f'{address}/{path.relative_to(folder)}') == []


def in_png(image):
    file = io.BytesIO()
    image.save(file, 'png')
    return file.getvalue()


def test_a_white_figure_has_a_twin_for_dark_ground_and_a_photograph_has_none():
    plot = Image.new('RGB', (100, 50), 'white')
    plot.paste((0, 114, 178), (10, 10, 30, 30))  # the blue of the book
    plot.paste((0, 0, 0), (0, 48, 100, 50))  # an axis
    turned = Image.open(io.BytesIO(at_night(in_png(plot)))).convert('RGB')
    assert turned.size == plot.size
    assert turned.getpixel((50, 5)) == (34, 34, 34)
    assert turned.getpixel((50, 49)) == (255, 255, 255)
    r, g, b = turned.getpixel((20, 20))
    assert b > 200 and b > g > r  # still blue, and light
    assert at_night(in_png(Image.new('RGB', (100, 50), 'black'))) is None
    plot.paste((0, 0, 0), (70, 10, 95, 35))  # a digit, on its own ground
    assert at_night(in_png(plot)) is None
    moves = io.BytesIO()
    plot.save(moves, 'png', save_all=True, append_images=[Image.new('RGB', (100, 50))])
    assert at_night(moves.getvalue()) is None


TURNS = re.compile(  # words for what the twin turns round
    r'\b(black|white|dark(?:er|est)?|light(?:er|est)?|pale(?:r|st)?|bright(?:er|est)?)\b',
    re.I,
)
DATA = re.compile(r'black (image|pixel)s?', re.I)  # as the camera saw them


def test_words_on_a_figure_are_right_on_both_grounds():
    wrong = []
    for path in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')):
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            told = ' '.join(re.findall(r'^#\| fig-(?:cap|alt): (.*)', source, re.M))
            words = TURNS.findall(DATA.sub('', told))
            shown = [o.get('data', {}).get('image/png') for o in c.get('outputs', [])]
            pngs = [base64.b64decode(''.join(png)) for png in shown if png]
            if words and any(at_night(png) for png in pngs):
                wrong.append(f'{path.stem}, {c["id"]}: {", ".join(words)}')
    assert wrong == []


def test_no_link_to_a_page_has_back_ticks_in_its_words():
    "What stands in them becomes a link of its own, and the two show their source."
    wrong = []
    for path in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')):
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source']) if c['cell_type'] == 'markdown' else ''
            wrong += re.findall(r'\[[^]\n]*`\w+`[^]\n]*\]\(\w+\.ipynb', source)
    assert wrong == []


ELSEWHERE = re.compile(
    r'\[(?:Eq\. )?\(?(eq-[\w-]+)\)?\]\(\d\w+\.ipynb#\1\)(.{0,9})', re.S
)


def test_an_equation_of_another_page_is_named_with_its_page():
    "The site shows its number, which is another one here."
    wrong = []
    for path in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')):
        if path.stem == '23_reading':
            continue  # which shows how such a reference looks
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source']) if c['cell_type'] == 'markdown' else ''
            for label, after in ELSEWHERE.findall(source):
                if not re.match(r'[),]?\s+of\s', after):
                    wrong.append(f'{path.stem}, {c["id"]}: {label}{after}')
    assert wrong == []


def luminance(color):
    "How light a colour is, as the guidelines for accessible pages count it."
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (c / 255 for c in color)
    ]
    return sum(a * v for a, v in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize('name', COLORS)
def test_lines_in_the_colours_of_the_book_stand_out_on_both_grounds(name):
    color = [int(COLORS[name][i : i + 2], 16) for i in (1, 3, 5)]
    ground = luminance(night(255, 255, 255))
    assert 1.05 / (luminance(color) + 0.05) >= 3
    assert (luminance(night(*color)) + 0.05) / (ground + 0.05) >= 3


def cell(kind, source, outputs=()):
    return dict(
        cell_type=kind, id='c', metadata={}, source=source, outputs=list(outputs)
    )


def test_folds_in_a_row_are_one_for_each_name():
    fold, figure = '#| code-fold: true\n', '#| label: fig-a\n#| fig-cap: "A"\n'
    cells = [
        cell('code', f'{fold}#| code-summary: "Imports"\nimport math'),
        cell('markdown', '[]{#e}'),
        cell('code', f'{fold}#| code-summary: "Code: a number"\ne = math.e'),
        cell('code', f'{figure}{fold}plot(e)', ['a picture']),
        cell('code', f'{fold}#| code-summary: "Code: one"\n1'),
        cell('code', f'{fold}#| code-summary: "Code: two"\n2'),
        cell('markdown', 'Words.'),
    ]
    made = few_folds(dict2nb(cells=cells).cells)
    assert [c.source for c in made] == [
        '[]{#e}',
        f'{fold}#| code-summary: "Code: a number"\n{figure}'
        'import math\n\ne = math.e\n\nplot(e)',
        f'{fold}#| code-summary: "Code: one"\n1',
        f'{fold}#| code-summary: "Code: two"\n2',
        'Words.',
    ]


def test_a_cell_of_imports_is_one_for_the_type_checker_too():
    lazy = 'import a\n\nif TYPE_CHECKING:\n    from b import c'
    assert only_imports(lazy) and not only_imports(f'{lazy}\n    d = 1')
    assert not only_imports('if a:\n    import b')


def test_the_home_page_lists_chapters_in_the_order_and_the_parts_of_the_sidebar():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    table = text.split('| chapter |')[1].split('\n\n')[0]
    part, listed = '', []
    for line in table.split('\n'):
        if found := re.match(r'\| \*\*(.+)\*\* \|', line):
            part = found[1]
        listed += [(part, name) for name in re.findall(r'\((nbs/\w+\.ipynb)\)', line)]
    chapters = list(preview.chapters())
    order = [chapters.index(entry) for entry in listed if entry[0] != 'Machinery']
    assert len(order) > 20 and order == sorted(order)
    assert set(listed) <= set(chapters)


def test_a_map_of_a_density_stays_dark_where_it_is_low():
    plot = Image.new('RGB', (200, 100), 'white')
    plot.paste((68, 1, 84), (20, 20, 120, 80))  # the low end of viridis
    plot.paste((253, 231, 37), (50, 30, 70, 60))  # the high end
    plot.paste((204, 121, 167), (80, 40, 84, 44))  # a point upon it
    plot.paste((68, 1, 84), (150, 40, 154, 44))  # a point of that colour elsewhere
    turned = Image.open(io.BytesIO(at_night(in_png(plot)))).convert('RGB')
    for place in [(30, 30), (60, 50), (82, 42)]:
        assert turned.getpixel(place) == plot.getpixel(place)
    assert turned.getpixel((10, 10)) == (34, 34, 34)
    assert luminance(turned.getpixel((152, 42))) > 0.2


def test_a_figure_stands_on_the_page_for_both_grounds(site):
    text = (site[0] / 'nbs' / '05_train.html').read_text(encoding='utf-8')
    whole = re.search(r'<div id="fig-chain"(?:.*?</div>){4}', text, re.S)[0]
    shown = re.findall(r'class="(\w+)-content">\s*<p><img\s+src="([^"]+)"', whole)
    assert [theme for theme, _ in shown] == ['light', 'dark']
    grounds = [
        Image.open(site[0] / 'nbs' / file).convert('RGB').getpixel((2, 2))
        for _, file in shown
    ]
    assert grounds == [(255, 255, 255), (34, 34, 34)]
    assert 'Figure 1: ' in whole and 'eight layers' in whole


def test_on_paper_anchors_stand_once_headings_link_nowhere_and_lines_break():
    part = '::: {.quarto-book-part}\n# Images\n:::'
    text = f'''{part}\n\n# [`MADE`](b.html)\n\n[]{{#made}} []{{#fit}} []{{#images}}

Again: []{{#fit}} one<br>two [NICE](06_coupling.ipynb) [MADE](nbs/09_made.ipynb) [x](a.ipynb#y)

| a |
|---|
| ![](a.png){{width=240}} |
'''
    made = pypandoc.convert_text(
        text, 'typst', 'markdown', extra_args=[f'--lua-filter={PAPER}']
    )
    assert [made.count(f'<{name}>') for name in ('made', 'fit', 'images')] == [1, 1, 1]
    assert 'one \\\ntwo' in made
    assert '= `MADE`' in made
    links = re.findall(r'#link\(([^)]*)\)', made)
    assert links == ['<page-06_coupling>', '<page-09_made>', '"a.ipynb#y"']
    assert 'image("a.png")' in made  # as wide as its column
    assert '#metadata(none)<fit> #metadata(none)<images>' in made


FAULTY = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Faults</title>
<script>throw new Error('broken')</script><main>
<p style="color: #999; background: white">Too pale to read.</p>
<p>A reference to ?@eq-none, and a formula $x^2$.</p>
<p>See Figure (fig-none).</p>
<p>No link: [MADE](09_made.html).</p><p id="same">One</p><p id="same">Two</p>
<pre style="overflow-x: auto">{code}</pre>
<div style="width: 1500px">wide</div>
<img src="picture.png" alt="short" style="width: 300px">
<img src="https://example.org/far.png" alt="{code}">
</main></html>"""


def test_what_a_reader_would_mind_is_found(tmp_path):
    if not look.chromium():
        pytest.skip('no Chromium on this machine: no page was opened')
    text = FAULTY.format(code='code ' * 60)
    (tmp_path / 'index.html').write_text(text, encoding='utf-8')
    Image.new('L', (300, 100)).save(tmp_path / 'picture.png')
    with look.served(tmp_path) as address, look.browser() as chrome:
        found = '\n'.join(look.look(chrome, f'{address}/index.html'))
    for fault in [
        'another host: https://example.org/far.png',
        'script: broken',
        'source shows: A reference to ?@eq-none',
        'source shows: No link',
        'source shows: See Figure (fig-none)',
        'twice: #same',
        'coarse: picture.png, 1.00',
        'no words for a picture: picture.png',
        '1280 px: code overflows',
        '360 px: the page scrolls sideways',
        'light: color-contrast',
    ]:
        assert fault in found, f'{fault} is not among\n{found}'


def keys(part):
    return set(KEYS[part].split())


def test_quarto_knows_every_key():
    told = yaml.safe_load((ROOT / '_quarto.yml').read_text(encoding='utf-8'))
    assert set(told) <= keys('top')
    assert set(told['project']) <= keys('project')
    assert set(told['book']) <= keys('book')
    assert set(told['website']) <= keys('website')
    assert set(told['format']['html']) <= keys('html')


def test_the_footer_names_the_version_and_links_name_the_repository():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    settings = config['DEFAULT']
    book = yaml.safe_load((ROOT / '_quarto.yml').read_text(encoding='utf-8'))['book']
    assert settings['version'] in book['page-footer']['left']
    assert book['repo-url'] == settings['git_url']


def test_the_rules_of_the_theme_are_plain_css():
    "`tools/preview.py` shows pages with them, and knows no more of SCSS than comments."
    rules = preview.style()
    assert not re.search(r'[$]\w|@include|@mixin|&:', rules)
    assert rules.count('{') == rules.count('}')
