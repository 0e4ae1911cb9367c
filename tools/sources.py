"""What the outputs of a page depend on: its code, the modules it imports, shipped runs.

Each source has a hash of its syntax tree: comments, docstrings and layout do not count.
`tools/run_nbs.py` stores the hashes beside the outputs, a test compares them."""

import ast
import functools
import hashlib
import json
import re
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / 'flowbook' / 'assets' / 'runs'
KEY = 'flowbook'  # of the metadata that hold the hashes; settings.ini keeps it
SKIPPED = re.compile(r'^#\| ?(slow|cuda)\b|^#\| ?eval: *false', re.M)


def without_docstrings(tree):
    "The tree with no docstring in it."
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if not isinstance(body, list) or not body or isinstance(node, ast.If):
            continue
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            if isinstance(first.value.value, str):
                body[:1] = [] if len(body) > 1 else [ast.Pass()]
    return tree


def digest(data):
    "A short hash of bytes."
    return hashlib.sha256(data).hexdigest()[:12]


def tree_digest(tree):
    "The hash of what a tree does."
    return digest(ast.dump(without_docstrings(tree)).encode())


@functools.cache
def module_digest(module):
    "The hash of a module of the package."
    return tree_digest(tree_of(module))


def code_of(notebook):
    "The cells of a notebook that run, as one tree."
    cells = [
        ''.join(c['source']) for c in notebook['cells'] if c['cell_type'] == 'code'
    ]
    running = [re.sub(r'^\s*[%!].*$', '', s, flags=re.M) for s in cells]
    body = [ast.parse(s).body for s in running if not SKIPPED.search(s)]
    return ast.Module([node for nodes in body for node in nodes], [])


@functools.cache
def tree_of(module):
    "The tree of a module of the package, and of none that is not there."
    stem = ROOT / module.replace('.', '/')
    for path in (stem.with_suffix('.py'), stem / '__init__.py'):
        if path.is_file():
            return ast.parse(path.read_text(encoding='utf-8'))
    return None


def imports(tree, package):
    "Modules of the package that a tree imports anywhere, also inside functions."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = '.' * node.level + (node.module or '')
            full = resolve_name(name, package) if node.level else name
            yield full
            yield from (f'{full}.{a.name}' for a in node.names)  # if that is a module


def closure(tree, package='flowbook'):
    "All modules of the package that a tree needs."
    found = set()
    waiting = [(tree, package)]
    while waiting:
        for module in imports(*waiting.pop()):
            ours = module.split('.')[0] == 'flowbook' and module not in found
            if ours and tree_of(module) is not None:
                found.add(module)
                waiting.append((tree_of(module), module.rpartition('.')[0]))
    return found


def files(tree):
    "Files that strings of a tree name: of shipped runs, or beside the notebooks."
    names = {getattr(node, 'id', '') for node in ast.walk(tree)}
    reads = names & {'read_run', 'shipped', 'load'}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(text, str) or not re.fullmatch(r'[\w./-]{1,80}', text):
            continue
        run = RUNS / text.split('/')[0]
        if reads and run.is_dir() and run != RUNS:
            yield from (p for p in run.iterdir() if p.is_file())
        elif text.startswith('../') and (ROOT / 'nbs' / text).is_file():
            yield (ROOT / 'nbs' / text).resolve()


def package_of(notebook):
    "The package that relative imports of a page start from."
    first = ''.join(notebook['cells'][0]['source'])
    named = re.match(r'#\| ?default_exp (\S+)', first)
    return f'flowbook.{named[1] if named else "page"}'.rpartition('.')[0]


def sources(notebook):
    "Name → hash of all that the outputs of a notebook depend on."
    tree = code_of(notebook)
    found = {m: module_digest(m) for m in sorted(closure(tree, package_of(notebook)))}
    for path in sorted(set(files(tree))):
        found[path.relative_to(ROOT).as_posix()] = digest(path.read_bytes())
    return {'page': tree_digest(tree)} | found


def stale(path):
    "What has changed since a notebook was executed: names of sources, or nothing."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    stored = notebook['metadata'].get(KEY, {}).get('sources', {})
    now = sources(notebook)
    return sorted(n for n in now.keys() | stored.keys() if now.get(n) != stored.get(n))
