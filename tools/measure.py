"""How dense the code is: python tools/measure.py [folder].

A test holds the package to the limits below."""

import ast
import io
import json
import re
import statistics
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = {'NL', 'NEWLINE', 'INDENT', 'DEDENT', 'COMMENT', 'ENCODING', 'ENDMARKER'}
LIMITS = {
    'tokens per code line': 9.5,
    'lines over 100 columns': 0,
    'lines of the largest exported cell': 60,
    'lines of the median exported cell': 20,
    'parallel assignments': 15,
    'public names': 70,
}


def docstrings(tree):
    "The lines that docstrings take."
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            yield from range(first.lineno, first.end_lineno + 1)


def count_tokens(text):
    "Tokens and lines of code, without comments and docstrings."
    skip = set(docstrings(ast.parse(text)))
    tokens = 0
    lines = set()
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[t.type] in QUIET or t.start[0] in skip:
            continue
        tokens += 1
        lines.update(range(t.start[0], t.end[0] + 1))
    return tokens, len(lines)


def parallel(tree):
    "Assignments of several values to several names at once, swaps excepted."
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        value = node.value
        if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
            continue
        names = {ast.unparse(e) for e in target.elts}
        if names != {ast.unparse(e) for e in value.elts}:
            yield node


def exported_cells(folder):
    "Source of each exported cell of the notebooks."
    for path in sorted(folder.glob('[!_.]*.ipynb')):
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(cell['source'])
            if cell['cell_type'] == 'code' and source.startswith('#| export'):
                yield source


def without_list_of_names(text):
    "A module without its `__all__`, which nbdev writes in lines of 120 columns."
    return re.sub(r'^__all__ = \[[^\]]*\]$', '', text, flags=re.M)


def measure(package):
    "Name → number for the modules of a package."
    paths = [p for p in sorted(package.rglob('*.py')) if p.stem != '_modidx']
    texts = [without_list_of_names(p.read_text(encoding='utf-8')) for p in paths]
    counts = [count_tokens(t) for t in texts]
    found = {
        'tokens per code line': round(
            sum(c[0] for c in counts) / sum(c[1] for c in counts), 2
        ),
        'lines over 100 columns': sum(
            len(line) > 100 for t in texts for line in t.splitlines()
        ),
        'parallel assignments': sum(1 for t in texts for _ in parallel(ast.parse(t))),
    }
    if package == ROOT / 'flowbook':
        import flowbook.all

        cells = [
            len(source.splitlines()) - 1 for source in exported_cells(ROOT / 'nbs')
        ]
        found['lines of the largest exported cell'] = max(cells)
        found['lines of the median exported cell'] = statistics.median(cells)
        found['public names'] = len(flowbook.all.__all__)
    return found


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    for name, value in measure(
        Path(sys.argv[1]) if sys.argv[1:] else ROOT / 'flowbook'
    ).items():
        print(f'{name:36} {value:8g}   (at most {LIMITS[name]:g})')
