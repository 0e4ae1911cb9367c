"""The pages: complete, executed, without traces of a machine.

Their references lead somewhere."""

import ast
import base64
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
from forms import REFERENCE, to_quarto
from outputs import same
from sources import KEY, code_of, sources, stale, tree_digest

NBS = sorted((ROOT / 'nbs').glob('[0-9a-z]*.ipynb'))
notebooks = pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
MACHINE = re.compile(
    r'''(?:^|[\s"'(=\[{,:`])/(?:work|tmp|home|root|farm|Users|mnt|opt)/|[A-Z]:\\\\Users'''
)


class Cell:
    "One cell: its kind, its text without directives, its directives and its outputs."

    def __init__(self, nb, i, cell):
        self.where, self.kind, self.text = (
            f'{nb.stem}, cell {i}',
            cell['cell_type'],
            ''.join(cell['source']),
        )
        if self.kind == 'markdown':
            self.text = to_quarto(self.text)
        self.outputs, self.raw = cell.get('outputs', []), cell
        self.directives = (
            dict(
                (m + ('',))[:2]
                for m in re.findall(r'^#\| ?([\w-]+):? *(.*)$', self.text, re.M)
            )
            if self.kind == 'code'
            else {}
        )
        self.exported = bool({'export', 'exporti', 'exports'} & set(self.directives))
        self.runs = self.directives.get('eval') != 'false' and not {
            'slow',
            'cuda',
        } & set(self.directives)

    def images(self):
        return [
            o['data']
            for o in self.outputs
            if any(k.startswith('image/') for k in o.get('data', {}))
        ]

    def body(self):
        try:
            return ast.parse(re.sub(r'^\s*[%!].*$', '', self.text, flags=re.M)).body
        except SyntaxError as e:
            raise AssertionError(f'{self.where}: {e}') from None

    def shown(self):
        "All that the outputs say, without pictures."
        for o in self.outputs:
            yield ''.join(o.get('text', []))
            yield from (
                ''.join(v) if isinstance(v, list) else json.dumps(v)
                for k, v in o.get('data', {}).items()
                if not k.startswith('image/')
            )


def read(path):
    return [
        Cell(path, i, c)
        for i, c in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells'])
    ]


CELLS = {p: read(p) for p in NBS}
PAGES = {
    **{
        p: '\n\n'.join(
            c.text
            if c.kind == 'markdown'
            else '\n'.join(
                v.strip('"')
                for k, v in c.directives.items()
                if k in ('fig-cap', 'tbl-cap')
            )
            for c in cells
        )
        for p, cells in CELLS.items()
    },
    **{p: p.read_text(encoding='utf-8') for p in ROOT.glob('*.qmd')},
}


def prose(text):
    "Markdown without fenced and inline code."
    return re.sub(
        r'(`+)(?!`).+?(?<!`)\1(?!`)',
        '',
        re.sub(r'^(```+).*?^\1', '', text, flags=re.S | re.M),
    )


def labels():
    "Every label of the book and where it is set."
    for path, text in PAGES.items():
        for name in re.findall(r'\{[^{}\n]*#((?:eq|fig|sec|tbl)-[\w-]+)', prose(text)):
            yield name, path.stem
    for cells in CELLS.values():
        for c in cells:
            if 'label' in c.directives:
                yield c.directives['label'], c.where


LABELS = [name for name, _ in labels()]


def test_there_are_notebooks():
    assert len(NBS) > 5


# The library is what the notebooks say.
def test_export_leaves_no_difference(tmp_path):
    for name in ('settings.ini', 'setup.py', 'README.md'):
        shutil.copy(ROOT / name, tmp_path)
    for name in ('nbs', 'flowbook'):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns('__pycache__', '.*'),
        )
    for p in (tmp_path / 'flowbook').rglob('*.py'):
        p.unlink()
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'from nbdev.doclinks import nbdev_export; nbdev_export()',
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != 'IN_TEST'},
    )  # nbdev exports nothing under IN_TEST
    assert done.returncode == 0, done.stderr[-2000:]
    names = {
        p.relative_to(folder / 'flowbook')
        for folder in (ROOT, tmp_path)
        for p in (folder / 'flowbook').rglob('*.py')
    }
    _, different, missing = filecmp.cmpfiles(
        ROOT / 'flowbook', tmp_path / 'flowbook', names, shallow=False
    )
    assert not different + missing, 'run nbdev_export'


# Each notebook.
@notebooks
def test_notebook_is_clean_json_for_python3(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    assert nb['nbformat'] == 4 and nb['metadata']['kernelspec']['name'] == 'python3'
    ids = [c['id'] for c in nb['cells']]
    assert len(set(ids)) == len(ids) and all(
        c['cell_type'] in ('markdown', 'code', 'raw') for c in nb['cells']
    )
    assert not [c['id'] for c in nb['cells'] if c.get('execution_count')], (
        'run nbdev_clean'
    )
    first = next(c for c in CELLS[path] if c.kind == 'markdown').text
    assert re.match(r'# \S.*\n+> \S', first), (
        'the page starts with a title and one line that says what it is'
    )


@notebooks
def test_cells_that_show_something_have_their_outputs(path):
    for c in CELLS[path]:
        if c.kind != 'code' or not c.runs or 'hide' in c.directives:
            continue
        prints = any(
            isinstance(n, ast.Expr)
            and isinstance(n.value, ast.Call)
            and getattr(n.value.func, 'id', '') == 'print'
            for n in c.body()
        )
        assert c.outputs or not prints, (
            f'{c.where} prints, but its output is not stored; run tools/run_nbs.py'
        )
        assert c.images() or not c.directives.get('label', '').startswith('fig-'), (
            f'{c.where} is labelled as a figure, but holds none'
        )
    assert any(c.outputs for c in CELLS[path]) or all(
        c.exported or len(c.body()) < 9 for c in CELLS[path] if c.kind == 'code'
    ), 'never executed'


@notebooks
def test_a_page_was_executed_with_the_present_sources(path):
    changed = stale(path)
    few = ', '.join(changed[:5]) + ', …' * (len(changed) > 5)
    assert not changed, (
        f'{few}: not as when {path.name} was executed; run '
        f'tools/run_nbs.py --stamp nbs/{path.name}, or --stamp --stale for all pages'
    )


@notebooks
def test_outputs_hold_no_errors_warnings_or_html(path):
    for c in CELLS[path]:
        for o in c.outputs:
            assert o['output_type'] != 'error' and o.get('name') != 'stderr', (
                f'{c.where}: {"".join(o.get("text", o.get("traceback", [])))[:200]}'
            )
            assert not {'text/html', 'application/javascript'} & set(
                o.get('data', {})
            ), c.where
        for text in c.shown():
            assert (
                'Warning' not in text
                and 'Traceback' not in text
                and '\x1b[' not in text
            ), f'{c.where}: {text[:200]}'
            assert not re.search(r' at 0x[0-9a-f]{6,}', text), (
                f'{c.where} prints a memory address'
            )


@notebooks
def test_nothing_betrays_the_machine(path):
    for c in CELLS[path]:
        for text in (c.text, *c.shown()):
            found = MACHINE.search(text)
            assert not found, (
                f'{c.where}: {text[max(0, found.start() - 30) : found.end() + 30]!r}'
            )


@notebooks
def test_pictures_are_small_and_described(path):
    alts, caps = [], []
    for c in CELLS[path]:
        for data in c.images():
            for png in [''.join(data['image/png'])] if 'image/png' in data else []:
                assert len(base64.b64decode(png)) <= 150 * 1024, (
                    f'{c.where}: {len(base64.b64decode(png)) // 1024} KiB'
                )
        if not c.images():
            continue
        label, alt, cap = (
            c.directives.get(k, '').strip().strip('"')
            for k in ('label', 'fig-alt', 'fig-cap')
        )
        assert label.startswith('fig-'), f'{c.where}: label {label!r}'
        assert 60 <= len(alt) <= 400, (
            f'{c.where}: fig-alt of {len(alt)} characters, expected 60 to 400'
        )
        assert len(cap) > 20, f'{c.where}: fig-cap {cap!r}'
        alts.append(alt)
        caps.append(cap)
    assert (
        len(set(alts)) == len(alts)
        and len(set(caps)) == len(caps)
        and not set(alts) & set(caps)
    )


@notebooks
def test_a_figure_shows_its_picture_and_nothing_else(path):
    for c in CELLS[path]:
        if not c.directives.get('label', '').startswith('fig-'):
            continue
        other = [
            o
            for o in c.outputs
            if o['output_type'] != 'stream'
            and not any(k.startswith('image/') for k in o.get('data', {}))
        ]
        assert not other, (
            f'{c.where}: the value of its last line becomes a panel of the figure; '
            'end that line with a semicolon'
        )


@notebooks
def test_the_title_cell_holds_nothing_that_the_page_builder_would_drop(path):
    if path.stem == 'index':
        return  # built by tools/pages.py
    title = next(c.text for c in CELLS[path] if c.kind == 'markdown')
    assert re.fullmatch(r'# [^\n]+\n\n(> [^\n]+\n?)+', title.strip() + '\n'), (
        'prose after the description is lost: give it a cell of its own'
    )


@notebooks
def test_imports_stand_in_cells_of_their_own(path):
    for c in CELLS[path]:
        if c.kind != 'code' or c.exported or not c.images():
            continue
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in c.body()}
        assert len(kinds) < 2, (
            f'{c.where} mixes imports with other code; nbdev would run it when it builds the page'
        )


@pytest.mark.parametrize(
    'path', [p for p in NBS if re.match(r'[0-7]\d_', p.stem)], ids=lambda p: p.stem
)
def test_a_chapter_proves_what_it_says(path):
    asserting = [
        c
        for c in CELLS[path]
        if c.kind == 'code' and not c.exported and ASSERTING.search(c.text)
    ]
    assert len(asserting) >= 6, f'{len(asserting)} cells assert something'


ASSERTING = re.compile(r'\bassert\b|\btest_\w+\(|ExceptionExpected|check_\w+\(')


def tagged(letter):
    "The equations (Q) or errata (E) of the report that a comment in an asserting cell names."
    lines = [
        line
        for cells in CELLS.values()
        for c in cells
        if c.kind == 'code' and ASSERTING.search(c.text)
        for line in c.text.splitlines()
        if re.match(r'# (Check|Errata) [QE]\d', line)
    ]
    return {
        int(n)
        for line in lines
        for n in re.findall(rf'\b{letter}(\d+)\b', line.split(':')[0])
    }


def test_every_equation_of_the_reports_foundations_is_checked():
    assert not set(range(1, 20)) - tagged('Q')


def test_every_error_of_the_reports_foundations_is_shown():
    assert not {*range(8, 18), *range(33, 41)} - tagged('E')


def test_every_equation_and_error_of_the_reports_autoregressive_flows_is_shown():
    assert not set(range(35, 41)) - tagged('Q') and not {4, 5, 45, 46, 48, 49} - tagged(
        'E'
    )


@notebooks
def test_every_public_name_has_a_docstring(path):
    for c in CELLS[path]:
        if c.kind != 'code' or not c.exported:
            continue
        for n in c.body():
            if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) or n.name.startswith(
                '_'
            ):
                continue
            patched = any(getattr(d, 'id', '') == 'patch' for d in n.decorator_list)
            if patched and n.name in (
                'forward',
                'inverse',
                'initialize',
                'output_shape',
            ):
                continue  # documented on Bijection
            assert ast.get_docstring(n) or (
                isinstance(n, ast.FunctionDef)
                and re.search(r'_(sample|log_prob)$', n.name)
            ), f'{c.where}: {n.name}'


# References.
def test_labels_are_unique_over_the_book():
    seen = {}
    for name, where in labels():
        seen.setdefault(name, []).append(where)
    assert not {k: v for k, v in seen.items() if len(v) > 1}


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.stem)
def test_references_lead_to_a_label(path):
    wanted = set(
        re.findall(r'(?<![\w.])@((?:eq|fig|sec|tbl)-[\w-]+)', prose(PAGES[path]))
    )
    assert not wanted - set(LABELS)


@notebooks
def test_equations_named_in_code_exist(path):
    wanted = {
        m
        for c in CELLS[path]
        if c.kind == 'code'
        for m in re.findall(r'\b(eq-[a-z0-9][\w-]*)', c.text)
    }
    assert not wanted - set(LABELS)


BIB = (
    (ROOT / 'references.bib').read_text(encoding='utf-8')
    if (ROOT / 'references.bib').exists()
    else ''
)
KEYS = re.findall(
    r'^\s*@(?!comment|string|preamble)\w+\s*\{\s*([^,\s]+)\s*,', BIB, re.M | re.I
)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.stem)
def test_citations_are_in_the_bibliography(path):
    text = re.sub(
        r'\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)', '', prose(PAGES[path]), flags=re.S
    )
    cited = {
        k.rstrip('.:-') for k in re.findall(r'(?<![\w.@/])@([A-Za-z][\w:.-]*)', text)
    }
    cited = {k for k in cited if not re.match(r'(eq|fig|sec|tbl)-', k)}
    assert not cited - set(KEYS), 'not in references.bib'


def test_bibliography_keys_are_unique():
    assert len(set(KEYS)) == len(KEYS) > 0


@pytest.mark.parametrize('path', [*PAGES, ROOT / 'README.md'], ids=lambda p: p.stem)
def test_local_links_lead_to_a_page(path):
    text = PAGES[path] if path in PAGES else path.read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)\s]+)[^)]*\)', prose(text)):
        if re.match(r'[a-z]+:', target):
            continue
        file, _, anchor = target.partition('#')
        place = ROOT / file[1:] if file.startswith('/') else path.parent / file
        assert not file or place.exists(), f'{target} does not exist'
        if re.match(r'(eq|fig|sec|tbl)-', anchor):
            assert anchor in LABELS, f'{target}: no such label'


# What the outputs depend on.
def page_of(*cells, sources=None):
    "A notebook of code cells."
    made = [dict(cell_type='code', source=c, outputs=[]) for c in cells]
    metadata = {} if sources is None else {KEY: dict(sources=sources)}
    return dict(cells=made, metadata=metadata)


def page_hash(*cells):
    return tree_digest(code_of(page_of(*cells)))


PLAIN = 'def f(x, n=2):\n    return x + n'


def test_comments_docstrings_layout_and_cells_that_do_not_run_are_no_sources():
    same = 'def f(x, n=2):\n    "It adds."\n    return (x\n            + n)  # so'
    assert page_hash(PLAIN) == page_hash(same) == page_hash(f'#| export\n{same}')
    assert page_hash(PLAIN) == page_hash(PLAIN, '#| slow\nf(1)')
    assert page_hash(PLAIN) == page_hash(PLAIN, '#| eval: false\nf(1)')
    for other in [
        PLAIN.replace('2', '3'),
        PLAIN.replace('+', '-'),
        PLAIN.replace('x + n', '"It adds."'),
    ]:
        assert page_hash(other) != page_hash(PLAIN)
    assert page_hash(PLAIN, 'f(1)') != page_hash(PLAIN)


def test_a_page_depends_on_all_that_its_modules_import_and_on_the_runs_it_reads():
    found = sources(page_of('#| default_exp x', 'from flowbook.glow import glow'))
    assert {'page', 'flowbook.glow', 'flowbook.core', 'flowbook.described'} <= set(
        found
    )
    assert not {'flowbook.glow', 'flowbook.runs'} & set(
        sources(page_of('import torch'))
    )
    relative = page_of('#| default_exp experiments.x', 'from ..nets import MLP')
    assert 'flowbook.nets' in sources(relative)
    assert 'flowbook.nets' in sources(page_of('from flowbook import nets'))
    read = sources(page_of("read_run('moons')"))
    assert 'flowbook/assets/runs/moons/run.json' in read
    assert set(sources(page_of("toys['moons']"))) == {'page'}


def test_a_page_out_of_date_says_what_has_changed(tmp_path):
    page = page_of('from flowbook.nets import MLP')
    now = sources(page)
    path = tmp_path / 'page.ipynb'
    for stored, changed in [
        (now, []),
        (now | {'flowbook.nets': 'other'}, ['flowbook.nets']),
        (now | {'page': 'other', 'flowbook.gone': 'some'}, ['flowbook.gone', 'page']),
        (None, sorted(now)),
    ]:
        page = page_of('from flowbook.nets import MLP', sources=stored)
        path.write_text(json.dumps(page))
        assert stale(path) == changed


def test_cleaning_keeps_the_hashes():
    from nbdev.clean import _nbdev_clean

    nb = json.loads((ROOT / 'nbs' / '17_layers.ipynb').read_text(encoding='utf-8'))
    stored = nb['metadata'][KEY]
    _nbdev_clean(nb)
    assert nb['metadata'][KEY] == stored


def test_stamping_keeps_an_output_that_comes_out_again():
    def shown(text, png=''):
        data = {'text/plain': text} | ({'image/png': png} if png else {})
        return [dict(output_type='display_data', data=data)]

    shows = [c for cells in CELLS.values() for c in cells if c.images()]
    one, two = (''.join(c.images()[0]['image/png']) for c in shows[:2])
    assert same(shown('1', one), shown('1', one)) and same([], [])
    assert not same(shown('1', one), shown('2', one))
    assert not same(shown('1', one), shown('1', two))
    assert not same(shown('1', one), shown('1')) and not same(shown('1'), [])


# Forms that read well in Jupyter too.
OWN_FORMS = r"""<a id="sec-chain"></a>

## A chain

By [Eq. (eq-one)](05_train.ipynb#eq-one) and more ([eq-two](#eq-two), [Fig. (fig-a)](#fig-a)):

$$
x = f(z) . \tag{eq-three}
$$

> **Predict**
>
> What is $x$?
>
> $$ y = x \tag{eq-four} $$
>
> - two

<details><summary>Solution 1</summary>

By [Table (tbl-b)](#tbl-b), not `[eq-two](#eq-two)`.

</details>

> An ordinary quotation, and [a link](#eq-two).

| [<img src="a.png" width="240" alt="Two words">](b.ipynb) |

```
> **Predict**
>
> not this
```"""
QUARTOS_FORMS = r"""## A chain {#sec-chain}

By @eq-one and more (@eq-two, @fig-a):

$$
x = f(z) .
$$ {#eq-three}

::: {.callout-tip}
## Predict
What is $x$?

$$ y = x $$ {#eq-four}

- two
:::

::: {.callout-note collapse="true"}
## Solution 1
By @tbl-b, not `[eq-two](#eq-two)`.

:::

> An ordinary quotation, and [a link](#eq-two).

| [![Two words](a.png){width=240}](b.ipynb) |

```
> **Predict**
>
> not this
```"""


def test_forms_of_jupyter_become_those_of_quarto():
    assert to_quarto(OWN_FORMS) == QUARTOS_FORMS == to_quarto(QUARTOS_FORMS)


@pytest.mark.parametrize(
    'title, kind',
    [
        ('After this page you can', '{.callout-note appearance="simple"}'),
        ('Errata of the report', '{.callout-important}'),
        ('Trap: two things', '{.callout-warning}'),
        ('Caution: a level', '{.callout-caution}'),
        ('What this page does not run', '{.callout-caution}'),
        ('Why so', '{.callout-note}'),
    ],
)
def test_a_box_has_its_kind_from_its_title(title, kind):
    made = to_quarto(f'> **{title}**\n>\n> - text')
    assert made == f'::: {kind}\n## {title}\n- text\n:::'


CONVERTED = True  # True once no page has forms that Jupyter shows raw


@notebooks
def test_a_page_shows_nothing_raw_in_jupyter(path):
    source = '\n\n'.join(
        ''.join(c.raw['source']) for c in CELLS[path] if c.kind == 'markdown'
    )
    raw = re.findall(
        r'^:::.*|\{#(?:eq|sec|fig)[\w-]*\}|(?<![\w.])@(?:eq|fig|sec|tbl)-[\w-]+',
        prose(source),
        re.M,
    )
    if raw and not CONVERTED:
        pytest.xfail(f'{len(raw)} forms: {raw[:3]}')
    assert not raw, f'{raw[:5]}: tools/forms.py has forms that read well in both'


@notebooks
def test_a_reference_names_the_page_of_its_label(path):
    text = ''.join(
        ''.join(c.raw['source']) for c in CELLS[path] if c.kind == 'markdown'
    )
    for found in REFERENCE.finditer(text):
        file = found[0].rpartition('(')[2].partition('#')[0]
        target = path.parent / file if file else path
        assert found[1] in [n for n, where in labels() if where.startswith(target.stem)]


# The site.
QUARTO = (ROOT / '_quarto.yml').read_text(encoding='utf-8')
BARE = re.compile(
    r'(?:pip|uv)3?(?: pip)? install(?: +-\S+)* +["\']?flowbook\b'
)  # the name on the public index is another project's
TEXTS = [
    p
    for p in ROOT.rglob('*')
    if p.suffix in ('.md', '.qmd', '.ipynb', '.py', '.yml', '.ini')
    and not set(p.relative_to(ROOT).parts[:-1])
    & {'.venv', '_docs', '.quarto', 'build', '.git'}
]


def test_nobody_is_told_to_install_the_name_from_the_public_index():
    assert (
        BARE.search('%pip install -q flowbook')
        and BARE.search("pip install 'flowbook[dev]'")
        and not BARE.search('pip install .')
    )
    assert not {
        p.name: m.group()
        for p in TEXTS
        if p.name != 'test_notebooks.py'
        and (m := BARE.search(p.read_text(encoding='utf-8')))
    }


def test_the_home_page_and_the_readme_are_what_the_notebook_says():
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'pages.py', '--check'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_address_of_the_repository_is_one_setting():
    from configparser import ConfigParser

    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    url = config['DEFAULT']['git_url']
    assert re.search(r'repo-url: (\S+)', QUARTO)[1] == url
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert f'git clone {url}' in readme and f'git+{url}' in readme


def test_every_extra_that_the_readme_names_exists():
    readme, setup = (
        (ROOT / name).read_text(encoding='utf-8')
        for name in ('README.md', 'settings.ini')
    )
    named = {
        e
        for group in re.findall(r"-e '\.\[([\w,]+)\]'", readme)
        for e in group.split(',')
    }
    assert named == {'dev', 'notebooks', 'docs'} and all(
        f'{e}_requirements' in setup for e in named
    )


def test_the_home_page_has_no_number_and_rendering_leaves_the_tree_clean():
    home = (ROOT / 'index.qmd').read_text(encoding='utf-8')
    assert re.search(r'^# .* \{\.unnumbered\}$', home, re.M) and not re.search(
        r'^title:', home, re.M
    )
    ignored = (ROOT / '.gitignore').read_text().splitlines()
    assert {'/.quarto/', '**/*.quarto_ipynb', '_docs/'} <= set(ignored)


def test_fonts_and_mathematics_come_from_the_sites_own_files():
    folder = re.search(r'method: katex, url: /(\S+?)/?}', QUARTO)[1]
    assert f'resources: [{folder}' in QUARTO
    css = (ROOT / folder / 'katex.min.css').read_text()
    named = re.findall(r'url\(([^)]+)\)', css)
    assert len(named) > 10 and all((ROOT / folder / name).is_file() for name in named)
    for theme in re.findall(r'site/\w+\.scss', QUARTO):
        scss = (ROOT / theme).read_text()
        assert (
            '$web-font-path: "";' in scss
            and 'http' not in scss
            and '@import' not in scss
        )


def filtered(path):
    "The notebook as the site's filter leaves it."
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'quarto_filter.py'],
        cwd=path.parent,
        input=path.read_text(encoding='utf-8'),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_code_names_an_equation_by_its_number_on_the_page():
    def code_of(stem):
        nb = filtered(ROOT / 'nbs' / f'{stem}.ipynb')
        shown = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
        outputs = [o for c in nb['cells'] for o in c.get('outputs', [])]
        tables = (o.get('data', {}).get('text/markdown', '') for o in outputs)
        return '\n'.join(shown + [''.join(t) for t in tables])

    nice, training = code_of('06_coupling'), code_of('05_train')
    for code in (nice, training):
        assert not re.search(r'Eq\. \(eq-', code)
    assert 'return z * log_s.exp() + t, log_s.sum(-1)  # Eq. (1)' in training
    assert training.count('# Eq. (1)') == 4  # the layer, and its source shown again
    assert re.search(r'Eq\. \(\d+\) of [A-Z]', nice)


MOVING = [p for p in NBS if 'widget-view' in p.read_text(encoding='utf-8')]


@pytest.mark.parametrize('path', MOVING, ids=lambda p: p.stem)
def test_a_figure_that_moves_needs_no_kernel_and_has_a_still(path):
    nb = filtered(path)
    assert 'widgets' not in nb['metadata']
    assert 'jupyter.widget' not in json.dumps([c.get('outputs') for c in nb['cells']])
    sources = [''.join(c['source']) for c in nb['cells']]
    moving = [s for s in sources if 'class="moving"' in s]
    views = sum(
        'application/vnd.jupyter.widget-view+json' in o.get('data', {})
        for c in CELLS[path]
        for o in c.outputs
    )
    assert len(moving) == views > 0
    for source in moving:
        still = re.search(r'<img src="../(site/stills/[^"]+)" alt="[^"]{60,}"', source)
        assert (ROOT / still[1]).is_file()


def test_the_table_of_contents_lists_every_notebook_once():
    listed = re.findall(
        r'nbs/([\w-]+)\.ipynb', (ROOT / '_quarto.yml').read_text(encoding='utf-8')
    )
    assert sorted(listed) == [p.stem for p in NBS if p.stem[0].isdigit()]
