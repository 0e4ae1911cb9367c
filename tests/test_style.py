"""The style of the house: formatted, linted, typed, airy.

Rooms say what they hold, and no circle of imports."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
from measure import LIMITS, measure

import flowbook.all

NBS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
SUPPORT = '''described files format1 records settings data toys figures engine examples
parallel tables columns ppl fitting'''.split()


def run(*command):
    "Run a tool of this environment on the whole project; its output if it fails."
    done = subprocess.run(
        [sys.executable, '-m', *command], cwd=ROOT, capture_output=True, text=True
    )
    return '' if done.returncode == 0 else done.stdout + done.stderr


def test_code_of_notebooks_tests_and_tools_is_formatted():
    assert not (said := run('ruff', 'format', '--check', '.')), said


def test_code_of_notebooks_tests_and_tools_passes_the_linter():
    assert not (said := run('ruff', 'check', '--output-format', 'concise', '.')), said
    config = (ROOT / 'ruff.toml').read_text()
    assert 'per-file-ignores' not in config and '"E", "F", "B", "I"' in config
    for path in [*NBS, *ROOT.glob('tests/*.py'), *ROOT.glob('tools/*.py')]:
        assert not re.search(r'# (ruff|flake8|mypy): ', path.read_text()), path.name


def test_types_are_right():
    assert not (said := run('mypy')), said


def test_the_package_is_airy():
    found = measure(ROOT / 'flowbook')
    assert set(found) == set(LIMITS)
    assert not {k: v for k, v in found.items() if v > LIMITS[k]}


# Rooms.
def module_of(path):
    "The module that a notebook exports."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return re.match(r'#\| ?default_exp (\S+)', ''.join(cells[0]['source']))[1]


def source_of(module):
    return ROOT / 'flowbook' / f'{module.replace(".", "/")}.py'


MODULES = {module_of(p): p for p in NBS}


@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_a_notebook_carries_the_name_of_its_module(path):
    name = re.sub(r'^\d+[a-z]?_', '', path.stem)
    assert (
        module_of(path).rpartition('.')[2] == name
        and source_of(module_of(path)).exists()
    )


def imports(module):
    "The modules of flowbook that a module names anywhere, also inside functions."
    package = f'flowbook.{module}'.rpartition('.')[0]
    for node in ast.walk(ast.parse(source_of(module).read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            name = '.' * node.level + (node.module or '')
            full = importlib.util.resolve_name(name, package) if node.level else name
            if full.startswith('flowbook.'):
                yield full.removeprefix('flowbook.')
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith('flowbook.'):
                    yield a.name.removeprefix('flowbook.')


def test_no_circle_of_imports():
    done, open_ = set(), []

    def visit(module):
        assert module not in open_, ' → '.join([*open_, module])
        if module in done:
            return
        open_.append(module)
        for other in imports(module):
            visit(other)
        done.add(open_.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize(
    'path', [p for p in NBS if p.stem < '80'], ids=lambda p: p.stem
)
def test_a_chapter_imports_from_no_later_chapter(path):
    chapters = [p for p in NBS if p.stem < '80']
    later = {module_of(p) for p in chapters[chapters.index(path) :]}
    machinery = {module_of(p) for p in NBS if p.stem >= '80'} - set(SUPPORT)
    allowed = machinery if module_of(path).startswith('experiments.') else set()
    assert not set(imports(module_of(path))) & (later | (machinery - allowed))


# The public face.
NAMES = {name: getattr(flowbook.all, name) for name in flowbook.all.__all__}
CALLABLE = {name: thing for name, thing in NAMES.items() if callable(thing)}


def test_all_lists_what_it_imports_and_nothing_twice():
    tree = ast.parse(source_of('all').read_text(encoding='utf-8'))
    imported = [
        a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    ]
    assert sorted(imported) == sorted(NAMES) and len(NAMES) == len(flowbook.all.__all__)


@pytest.mark.parametrize('name', CALLABLE)
def test_a_public_name_is_documented_and_annotated(name):
    thing = CALLABLE[name]
    doc = inspect.getdoc(thing)
    assert doc and doc.split('\n\n')[0].rstrip().endswith('.'), 'a sentence'
    target = thing.__init__ if inspect.isclass(thing) else thing
    if inspect.isclass(thing) and '__init__' not in thing.__dict__:
        return
    free = {
        'self',
        'args',
        'kwargs',
        'data',
        'path',
        'value',
        'f',
        'ax',
        'x',
        'log_prob',
        'branches',
        'options',
        'run',
    }
    bare = [
        p.name
        for p in inspect.signature(target).parameters.values()
        if p.annotation is p.empty and p.name not in free
    ]
    assert not bare, bare
    if not inspect.isclass(thing):
        assert inspect.signature(
            thing
        ).return_annotation is not inspect.Signature.empty or name in (
            'draw_grid',
            'draw_density',
            'draw_images',
        )


def text_of(thing):
    "Docstring and docments: all that a reader sees of a public name."
    source = inspect.getsource(thing)
    return f'{inspect.getdoc(thing)}\n' + '\n'.join(re.findall(r'#.*$', source, re.M))


SHAPE = re.compile(r'[Ss]hape|\(\.\.\.|`\(n\b|\(n,|Length of|Number of')


def test_most_public_names_give_shapes():
    told = [name for name, thing in CALLABLE.items() if SHAPE.search(text_of(thing))]
    assert len(told) >= 0.75 * len(CALLABLE), sorted(set(CALLABLE) - set(told))


def test_types_ship_with_the_package():
    assert (ROOT / 'flowbook' / 'py.typed').is_file()
    assert 'py.typed' in (ROOT / 'setup.py').read_text()
