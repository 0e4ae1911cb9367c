"""Change the code of pages on purpose, and see whether their checks notice.

    python tools/mutate.py [--sample N] [--seed S] [--tests S] RECORD.json [PAGE …]

A mutant is one exported cell with one change: another sign, factor, bound, constant,
direction or default, a dropped option, guard or statement, a context times zero, a body
that does nothing. Lines of other cells that a comment calls `# Eq. (eq-…)` have mutants
too. A page runs in one process; before a cell is executed, each of its mutants takes
the cell's place in a fork, which goes on with the cells below until one fails. So the
page's own checks are what is tried: modules that the page imports are not changed.

At first the longest statements of a page are left out, until the others take no more
than `--lean` seconds, and what depends on those. They are tried on survivors only, in a
second round of `--seconds` a page. A mutant that passes the quick
cells and is not decided there is `slow`; one whose statement no cell runs is `never`.
With `--tests` survivors are tried on tests, in a copy of the package. All seconds are
those of the processor. The record grows page by page; a page that has not changed is
kept, and so is the `reason` that a person wrote beside a survivor. A reason that starts
with "equivalent" says that the mutant computes the same. Without pages the survivors of
the record are listed."""

import argparse
import ast
import contextlib
import hashlib
import io
import json
import linecache
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ |= dict(OMP_NUM_THREADS='1', IN_TEST='1', MPLBACKEND='Agg')

ROOT = Path(__file__).resolve().parent.parent
HOUSE = 'notebooks style packaging tools mutate fuzz parallel'.split()  # other tests

# What is changed into what.
ARITHMETIC = dict(Add='Sub', Sub='Add', Mult='Div', Div='Mult')
COMPARISON = """Lt LtE, Lt GtE, LtE Lt, LtE Gt, Gt GtE, Gt LtE, GtE Gt, GtE Lt, Eq NotEq,
NotEq Eq, Is IsNot, IsNot Is, In NotIn, NotIn In"""
PAIRS = """forward inverse, min max, minimum maximum, amin amax, argmin argmax, any all,
sum mean, zeros ones, zeros_like ones_like, new_zeros new_ones, tril triu, floor ceil,
sin cos, exp log, sigmoid tanh, train eval"""
PAIRED = [p.split() for p in PAIRS.split(',')]
NAMES = dict(PAIRED) | {b: a for a, b in PAIRED}
TOLD = '__repr__ extra_repr print warn warnings w fig figure ax axs plt'.split()
TINY = 0.01  # such a constant is a tolerance or a floor: doubled, it does the same


@dataclass
class Mutant:
    "A cell with one change."

    operator: str
    line: int  # of the cell, from 1
    original: str
    mutant: str
    source: str  # of the changed cell
    runs: int | None  # line of the statement that must run; None: it always does
    cell: int = 0  # of the page, from 0
    equations: list = field(default_factory=list)  # that its line is named after


def is_text(node: ast.AST) -> bool:
    "Whether a statement is a docstring or an ellipsis."
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_told(node: ast.AST) -> bool:
    "Whether a node speaks to people only: a text, an error, a picture, or is no code."
    if isinstance(node, (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return True
    root = getattr(node, 'value', None) if isinstance(node, ast.Expr) else node
    call = isinstance(root, ast.Call)
    while isinstance(root, (ast.Call, ast.Attribute, ast.Subscript)):
        root = root.func if isinstance(root, ast.Call) else root.value
    to_people = call and getattr(root, 'id', '') in TOLD
    return to_people or is_text(node) or getattr(node, 'name', '') in TOLD


def places(node: ast.AST, inside: int | None = None) -> Iterator[tuple]:
    "Each node that may change, the field that holds it, how to put another there."
    in_function = inside is not None or isinstance(node, ast.FunctionDef)
    for name, value in ast.iter_fields(node):
        if name in ('annotation', 'returns', 'decorator_list'):
            continue
        several = isinstance(value, list)
        for i, child in enumerate(value if several else [value]):
            if isinstance(child, ast.AST) and not is_told(child):
                own = in_function and isinstance(child, ast.stmt)
                runs = child.lineno if own else inside
                put = partial(value.__setitem__, i) if several else None
                yield child, name, put or partial(setattr, node, name), runs
                yield from places(child, runs)


def other_constant(value):
    "Another number or truth value; None for what has no other."
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float) and abs(value) < float('inf'):
        return value * (100 if abs(value) < TINY else 2) or 1.0
    return None


def nothing_done(f: ast.FunctionDef) -> list[ast.stmt] | None:
    "A body that returns the first argument; None where that is what the function does."
    body = f.body[is_text(f.body[0]) :]
    if not body or isinstance(body[0], (ast.Raise, ast.Pass)) or is_text(body[0]):
        return None
    inner = [n for s in body for n in ast.walk(s)]
    returned = [n.value for n in inner if isinstance(n, ast.Return) and n.value]
    first = next((a.arg for a in f.args.args if a.arg not in ('self', 'cls')), None)
    text = f'return {first}' if returned else 'pass'
    if first and returned and isinstance(returned[-1], ast.Tuple):
        text += f', 0 * {first}'
    if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in inner):
        text = 'yield from ()'
    same = [ast.unparse(s) for s in body] == [text]
    return None if same else ast.parse(f'def f():\n    {text}').body[0].body


def drops(node: ast.AST) -> bool:
    "Whether a statement can be left out without a name that is missing."
    if isinstance(node, ast.Expr):
        text = ast.unparse(node)
        return not is_text(node) and not text.startswith('super().__init__')
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return isinstance(node, ast.AugAssign)
    name = node.targets[0].id
    return any(getattr(n, 'id', '') == name for n in ast.walk(node.value))


def twice(node: ast.AST) -> ast.AST:
    "The value of a line that an equation is named after, times two."
    if isinstance(node, ast.Tuple):
        return ast.Tuple([*node.elts[:-1], twice(node.elts[-1])], node.ctx)
    return ast.BinOp(ast.Constant(2), ast.Mult(), node)


def changes(node: ast.AST, name: str, tagged: bool) -> Iterator[tuple]:
    "The operator and what it puts in the place of a node."

    def new(**fields):
        return kind(**{**dict(ast.iter_fields(node)), **fields})

    kind = type(node)
    op = type(getattr(node, 'op', None)).__name__
    value = getattr(node, 'value', None)
    if kind in (ast.BinOp, ast.AugAssign) and op in ARITHMETIC:
        turned = getattr(ast, ARITHMETIC[op])()
        yield 'sign' if op in ('Add', 'Sub') else 'factor', new(op=turned)
    elif kind is ast.UnaryOp and op == 'Not':
        yield 'logic', node.operand
    elif kind is ast.UnaryOp and op == 'USub':
        if not isinstance(getattr(node.operand, 'value', None), int):
            yield 'sign', node.operand
    elif kind is ast.Compare and len(node.ops) == 1:
        for old, turned in (p.split() for p in COMPARISON.split(',')):
            if type(node.ops[0]).__name__ == old:
                yield 'comparison', new(ops=[getattr(ast, turned)()])
    elif kind is ast.BoolOp:
        yield 'logic', new(op=ast.And() if op == 'Or' else ast.Or())
    elif name == 'test':
        yield 'logic', ast.UnaryOp(ast.Not(), node)
    if kind is ast.Constant and (other := other_constant(value)) is not None:
        default = name in ('defaults', 'kw_defaults')
        yield 'default' if default else 'constant', ast.Constant(other)
    elif kind is ast.Name and node.id in NAMES and name == 'func':
        yield 'name', new(id=NAMES[node.id])
    elif kind is ast.Attribute and node.attr in NAMES:
        yield 'name', new(attr=NAMES[node.attr])
    elif kind is ast.Name and node.id == 'context' and name in ('args', 'value'):
        text = 'None if context is None else 0 * context'
        yield 'context', ast.parse(text, mode='eval').body
    elif kind is ast.Call:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                rest = node.keywords[:i] + node.keywords[i + 1 :]
                yield 'keyword', new(keywords=rest)
    elif kind is ast.FunctionDef and (body := nothing_done(node)):
        yield 'no-op', new(body=body)
    elif kind is ast.If and isinstance(node.body[-1], ast.Raise):
        yield 'guard', new(test=ast.Constant(False))
    if tagged and kind in (ast.Return, ast.Assign):
        yield 'factor', new(value=twice(value))
    elif tagged and kind is ast.Expr and getattr(value, 'args', None):
        args = [twice(value.args[0]), *value.args[1:]]
        yield 'factor', ast.Expr(ast.Call(value.func, args, value.keywords))
    if drops(node):
        yield 'statement', ast.Pass()


def shown(node: ast.AST) -> str:
    "A node in one short line; of a block what tells its mutants apart."
    text = re.sub(r'\s+', ' ', ast.unparse(node))
    if isinstance(node, ast.If):
        text = f'if {ast.unparse(node.test)}: …'
    if isinstance(node, ast.FunctionDef):
        text = f'def {node.name}: … {ast.unparse(node.body[-1])}'
    return text.split('\n')[0][:100]


def told(operator: str, node: ast.AST, new: ast.AST) -> tuple[str, str]:
    "What was there and what stands there now, each in one short line."
    if operator != 'keyword':
        return shown(node), shown(new)
    lost = next(k for k in node.keywords if k not in new.keywords)
    call = ast.unparse(node.func)
    return f'{call}(…, {ast.unparse(lost)})', f'{call}(…)'


def mutants(source: str) -> Iterator[Mutant]:
    "All mutants of a cell, from top to bottom."
    tree = ast.parse(source)
    named = {i for _, *span, said in tags(source) if said for i in range(*span)}
    for node, name, put, runs in list(places(tree)):
        line = getattr(node, 'lineno', 0)
        tagged = isinstance(node, ast.stmt) and line in named
        for operator, new in changes(node, name, tagged):
            put(new)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            put(node)
            if operator == 'no-op':
                runs = node.body[is_text(node.body[0])].lineno
            yield Mutant(operator, line, *told(operator, node, new), changed, runs)


# Pages.
@dataclass
class Cell:
    "A code cell of a page."

    name: str
    source: str
    exported: bool


def read(page: str) -> tuple[list[Cell], list[str]]:
    "The code cells of a page that run, and the labels of its equations."
    nb = json.loads((ROOT / 'nbs' / f'{page}.ipynb').read_text(encoding='utf-8'))
    cells, labels = [], []
    for c in nb['cells']:
        text = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            labels += re.findall(r'(?:\{#|\\tag\{)(eq-[\w-]+)', text)
        elif not re.search(r'^#\| ?(eval: false|slow|cuda)', text, re.M):
            text = re.sub(r'^[%!].*$', '', text, flags=re.M)
            exported = bool(re.search(r'^#\| ?exporti?\b', text, re.M))
            cells.append(Cell(c['id'], text, exported))
    return cells, labels


def pieces(cells: list[Cell]) -> list[Cell]:
    "The cells, but statement by statement where they are not exported."
    found = []
    for cell in cells:
        lines = cell.source.split('\n')
        starts = [
            min([s.lineno, *(d.lineno for d in getattr(s, 'decorator_list', []))])
            for s in ast.parse(cell.source).body
        ]
        if cell.exported or len(starts) < 2:
            found.append(cell)
            continue
        for a, b in zip([1, *starts[1:]], [*starts[1:], len(lines) + 1]):
            part = '\n' * (a - 1) + '\n'.join(lines[a - 1 : b - 1])
            found.append(Cell(cell.name, part, False))
    return found


def digest(page: str) -> str:
    "What a record of the page depends on."
    cells, labels = read(page)
    text = json.dumps([labels, *([c.source, c.exported] for c in cells)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tags(source: str) -> Iterator[tuple[str, int, int, bool]]:
    "Labels that code names, the lines that they speak of, whether a comment says so."
    blocks = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.stmt)]
    for i, line in enumerate(source.split('\n'), 1):
        around = [b for b in blocks if b.lineno <= i <= b.end_lineno]
        around.sort(key=lambda b: (b.lineno, -b.end_lineno))
        if not around or line.startswith('#|'):
            continue
        text = is_text(around[-1])  # a docstring speaks of the whole function or class
        block = around[-2:][0] if text else around[-1]
        first, last = block.lineno, block.end_lineno
        if not text and getattr(block, 'args', None) and i > first:
            first = last = i  # an argument
        for label in re.findall(r'\beq-[a-z0-9][\w-]*', line):
            yield label, first, last + 1, not text


def mutants_of(cells: list[Cell]) -> list[Mutant]:
    "All mutants of a page: of exported cells, and of lines named after an equation."
    found = []
    for i, cell in enumerate(cells):
        spans = list(tags(cell.source))
        for m in mutants(cell.source) if cell.exported or spans else []:
            named = [(n, said) for n, *span, said in spans if m.line in range(*span)]
            commented = [n for n, said in named if said]
            line = cell.source.split('\n')[m.line - 1].strip()
            aside = m.operator == 'statement' or re.search(r'e-\d+$', m.original)
            aside = aside or line.startswith('assert')
            if cell.exported or (named and not aside):
                m.cell, m.equations = i, commented or [n for n, _ in named]
                found.append(m)
    return found


def sample(found: list[Mutant], cells: list[Cell], n: int, seed: int) -> list[Mutant]:
    "About `n` of them (0: all), with two of each equation, in the order of the page."
    if not n or len(found) <= n:
        return found
    rng = random.Random(seed)
    keep: set[int] = set()
    for label in sorted({name for m in found for name in m.equations}):
        own = [i for i, m in enumerate(found) if label in m.equations]
        keep.update(rng.sample(own, min(2, len(own))))
    rest = [i for i, m in enumerate(found) if cells[m.cell].exported and i not in keep]
    keep.update(rng.sample(rest, min(len(rest), max(0, n - len(keep)))))
    return [found[i] for i in sorted(keep)]


# Running.
OVER = (signal.SIGPROF, signal.SIGALRM)  # what ends a fork whose seconds are over


def spent() -> float:
    "Seconds of the processor that finished forks have used."
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def forked(task, seconds: float):
    "What `task()` returns in a process of its own; None when its seconds are over."
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(int(20 * seconds) + 60)  # if it waits for something
        try:
            said = task()
        except BaseException as e:
            said = dict(by='?', error=f'{type(e).__name__}: {e}')
        with contextlib.suppress(BaseException), os.fdopen(write_end, 'w') as out:
            out.write(json.dumps(said))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as text:
        said = text.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in OVER:
        return None
    return json.loads(said) if said else dict(by='?', error=f'it died, {status}')


def silence() -> None:
    "Nothing is printed from here on, and no more than 12 GiB of addresses are taken."
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2)


class Run:
    "A page in the state that a kernel would be in."

    def __init__(self, cells: list[Cell], skip=()):
        self.cells, self.skip = cells, set(skip)
        self.module = sys.modules['__main__'] = types.ModuleType('__main__')
        self.module.display = lambda *shown: None  # that of a kernel
        os.chdir(ROOT / 'nbs')
        sys.path[:0] = [str(ROOT)]

    def execute(self, i: int, source: str | None = None) -> str | None:
        "Execute a cell, or another in its place; what it raised, in one line."
        text = source or self.cells[i].source
        name = f'<cell {self.cells[i].name} {i}>'
        linecache.cache[name] = len(text), None, text.splitlines(True), name
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(text, name, 'exec'), self.module.__dict__)
        except BaseException as e:
            return f'{type(e).__name__}: {str(e).strip()}'.split('\n')[0][:100]
        finally:
            names = [c.name for c in self.cells[i : i + 2]]
            if names[1:] != names[:1] and (plt := sys.modules.get('matplotlib.pyplot')):
                plt.close('all')  # behind the last piece of a cell

    def fate(self, i: int, source: str) -> dict:
        "The first cell that fails with a mutant in the place of cell `i`, if one does."
        silence()
        for j in range(i, len(self.cells)):
            if j == i or j not in self.skip:
                if error := self.execute(j, source if j == i else None):
                    return dict(by=self.cells[j].name, error=error)
        return dict(by=None)


def instrumented(cell: Cell) -> str:
    "The cell, whose functions note which of their statements run."
    tree = ast.parse(cell.source)
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    for node in {n: None for f in functions for n in ast.walk(f)}:
        for name in ('body', 'orelse', 'finalbody'):
            block = getattr(node, name, None)
            if isinstance(block, list):
                lines = [f'__seen__.add(({cell.name!r}, {s.lineno}))' for s in block]
                notes = [ast.parse(line).body[0] for line in lines]
                pairs = [[s] if is_text(s) else [n, s] for n, s in zip(notes, block)]
                setattr(node, name, sum(pairs, []))
    return ast.unparse(ast.fix_missing_locations(tree))


def measured(cells: list[Cell]) -> dict:
    "Run a page as it is: seconds of each cell, and the statements that ran."
    silence()
    run = Run(cells)
    run.module.__seen__ = seen = set()
    times = [time.process_time()]
    for i, cell in enumerate(cells):
        if error := run.execute(i, instrumented(cell)):
            return dict(by=cell.name, error=error)
        times.append(time.process_time())
    seconds = [b - a for a, b in zip(times, times[1:])]
    return dict(seconds=seconds, seen=sorted(seen))


def left_out(cells: list[Cell], slow: list[int]) -> list[int]:
    "The slow cells and those that fail without them."
    silence()
    run = Run(cells)
    for i in range(len(cells)):
        names = dict(run.module.__dict__)
        if i not in slow and run.execute(i):
            slow = [*slow, i]
            run.module.__dict__.clear()
            run.module.__dict__.update(names)
    return slow


def tried(run: Run, given: list[Mutant], rest: list[float], limit: float) -> list[dict]:
    "The fates of mutants, in the order of the page."
    fates = []
    for i, cell in enumerate(run.cells):
        for m in (m for m in given if m.cell == i):
            left = min(5 + 3 * rest[i], limit - spent())
            found = forked(partial(run.fate, i, m.source), left) if left > 0 else None
            fates.append(found or dict(by=None, slow=True))
            if not fates[-1]['by']:
                said = f'{cell.name}:{m.line} {m.original} → {m.mutant}'
                print('  slow' if not found else '  alive', said, flush=True)
        if i not in run.skip and (error := run.execute(i)):
            raise RuntimeError(f'{cell.name}: {error}')
    return fates


def expect(found, kind: type):
    "What a fork found out, unless it is an error."
    if isinstance(found, kind) and 'error' not in found:
        return found
    raise RuntimeError(f'the page itself fails: {found}')


def one_round(cells, given, own: list[float], out: list[int], limit: float) -> list:
    "The fates of mutants on a page without some of its cells."
    used = [0 if i in out else s for i, s in enumerate(own)]
    rest = [sum(used[i:]) for i in range(len(used))]
    return expect(forked(lambda: tried(Run(cells, out), given, rest, limit), 1e4), list)


def longest(cells: list[Cell], own: list[float], lean: float) -> list[int]:
    "The longest pieces, without which the others take no more than `lean` seconds."
    left, slow = sum(own), []
    for i in sorted(range(len(own)), key=lambda i: -own[i]):
        if left > lean and not cells[i].exported:
            slow.append(i)
            left -= own[i]
    return slow


def on_page(cells: list[Cell], given: list[Mutant], lean: float, limit: float) -> tuple:
    "The fate of each mutant, at first without the slow cells; the page's own seconds."
    page = expect(forked(partial(measured, cells), 900), dict)
    own, seen = page['seconds'], {tuple(s) for s in page['seen']}
    slow = longest(cells, own, lean)
    out = expect(forked(partial(left_out, cells, slow), 900), list) if slow else []
    runs = [not m.runs or (cells[m.cell].name, m.runs) in seen for m in given]
    fates: list = [None if r else dict(by=None, never=True) for r in runs]
    todo = [k for k, r in enumerate(runs) if r]
    for k, f in zip(todo, one_round(cells, [given[k] for k in todo], own, out, 1e4)):
        fates[k] = f
    todo = [k for k in todo if out and not fates[k]['by'] and 'slow' not in fates[k]]
    again = [dict(by=None, slow=True)] * len(todo)
    if todo and limit:
        again = one_round(cells, [given[k] for k in todo], own, [], limit)
    for k, f in zip(todo, again):
        fates[k] = f
    return fates, sum(own)


# Tests.
class First:
    "A plugin of pytest that remembers the first test that fails."

    name = None

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.name = self.name or report.nodeid


def module_of(page: str) -> str:
    "The module that a page exports."
    return re.sub(r'^\d+[a-z]*_', '', page)


def files_for(page: str, source: str) -> list[str]:
    "Up to three test files that name most often what a cell defines, or its module."
    names = re.findall(r'^(?:def|class) (\w+)', source, re.M)
    words = '|'.join([rf'flowbook\.{module_of(page)}', *names])
    counts: Counter = Counter()
    for path in sorted((ROOT / 'tests').glob('test_*.py')):
        if path.stem.removeprefix('test_') not in HOUSE:
            text = path.read_text(encoding='utf-8')
            own = path.stem == f'test_{module_of(page)}'
            counts[str(path)] = own + len(re.findall(rf'\b(?:{words})\b', text))
    return [path for path, n in counts.most_common(3) if n]


def by_tests(folder: str, files: list[str]) -> dict:
    "The first test that fails with the package of a folder."
    silence()
    os.chdir(ROOT)
    os.environ['PYTHONPATH'] = folder
    sys.path.insert(0, folder)
    for name in [n for n in sys.modules if n.partition('.')[0] == 'flowbook']:
        del sys.modules[name]
    import pytest

    import flowbook

    assert flowbook.__file__.startswith(folder)
    first = First()
    code = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *files], [first])
    return dict(by=None if code in (0, 5) else first.name or f'pytest: {code}')


def on_tests(page: str, cell: Cell, mutant: Mutant, seconds: float) -> dict:
    "The fate of a mutant in a copy of the package; none where its cell is not found."
    module = f'{module_of(page)}.py'
    whole = (ROOT / 'flowbook' / module).read_text(encoding='utf-8')
    own = re.sub(r'^#\|.*\n', '', cell.source, flags=re.M).strip()
    files = files_for(page, cell.source)
    if not cell.exported or own not in whole or not files:
        return dict(by=None)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / 'flowbook'
        package.mkdir()
        for path in (ROOT / 'flowbook').iterdir():
            if path.name not in (module, '__pycache__'):
                (package / path.name).symlink_to(path)
        changed = whole.replace(own, mutant.source)
        (package / module).write_text(changed, encoding='utf-8')
        return forked(partial(by_tests, folder, files), seconds) or dict(by=None)


# The record.
def row(cell: Cell, m: Mutant, fate: dict, reasons: dict) -> dict:
    "What the record says of a mutant that was not caught."
    code = cell.source.split('\n')[m.line - 1].strip()
    how = 'never' if 'never' in fate else 'slow' if 'slow' in fate else 'alive'
    change = dict(operator=m.operator, original=m.original, mutant=m.mutant)
    said = dict(cell=cell.name, line=m.line, **change, code=code, fate=how)
    reason = reasons.get(key(said))
    return said | dict(reason=reason) if reason else said


def key(row: dict) -> tuple:
    "What tells a survivor of a page from others, wherever it stands in its cell."
    return tuple(row[k] for k in ('cell', 'operator', 'original', 'mutant'))


def share(fates: list[dict]) -> str:
    "How many of them were caught, in words."
    return f'{sum(bool(f["by"]) for f in fates)} of {len(fates)}'


def measure(page: str, options, old: dict) -> dict:
    "The part of the record that speaks of a page."
    start = spent()
    cells, labels = read(page)
    cells = pieces(cells)
    found = mutants_of(cells)
    given = sample(found, cells, options.sample, options.seed)
    fates, own = on_page(cells, given, options.lean, options.seconds)
    pairs = list(zip(given, fates))
    bites = Counter(f['by'] for f in fates)
    errors = Counter(f['error'].partition(':')[0] for f in fates if f['by'])
    says = {e: share([f for m, f in pairs if e in m.equations]) for e in labels}
    tests: Counter = Counter()
    for k, (m, fate) in enumerate(pairs):
        if options.tests and not fate['by']:
            later = on_tests(page, cells[m.cell], m, options.tests)
            tests[later['by']] += 1
            pairs[k] = m, later if later['by'] else fate
    reasons = {key(r): r.get('reason') for r in old.get('survivors', [])}
    rows = [row(cells[m.cell], m, f, reasons) for m, f in pairs if not f['by']]
    kinds = sorted({m.operator for m in given})
    return dict(
        digest=digest(page),
        mutants=len(found),
        tried=len(given),
        seed=options.seed,
        caught_on_page=len(given) - bites[None],
        caught_by_tests=sum(n for name, n in tests.items() if name),
        survivors=rows,
        operators={k: share([f for m, f in pairs if m.operator == k]) for k in kinds},
        equations=says,
        bites={c.name: bites[c.name] for c in cells if bites[c.name]},
        errors=dict(errors.most_common()),
        tests={name: n for name, n in tests.items() if name},
        page_seconds=round(own),
        seconds=round(spent() - start),
    )


def totals(pages: dict) -> dict:
    "The sums over all pages."
    rows = [r for p in pages.values() for r in p['survivors']]
    reasons = [r.get('reason', '') for r in rows]
    equivalent = sum(r.startswith('equivalent') for r in reasons)
    said = [s for p in pages.values() for s in p['equations'].values()]
    names = ('mutants', 'tried', 'caught_on_page', 'caught_by_tests', 'seconds')
    found = {k: sum(p[k] for p in pages.values()) for k in names}
    return found | dict(
        equivalent=equivalent,
        other_reasons=sum(map(bool, reasons)) - equivalent,
        slow=sum(r['fate'] == 'slow' for r in rows),
        share=round(1 - (len(rows) - equivalent) / (found['tried'] - equivalent), 4),
        equations=len(said),
        equations_caught=sum(not s.startswith('0') for s in said),
        equations_without_a_line=said.count('0 of 0'),
    )


def listing(record: dict) -> Iterator[str]:
    "Totals, and the survivors that nobody has explained, in lines."
    yield ', '.join(f'{k} {v}' for k, v in record['totals'].items())
    for name, page in record['pages'].items():
        yield f'\n{name}: {page["caught_on_page"]} of {page["tried"]} on the page'
        for r in page['survivors']:
            if 'reason' not in r:
                change = f'{r["original"]} → {r["mutant"]}'
                yield f'  {r["fate"]} {r["cell"]}:{r["line"]} {change}  | {r["code"]}'


def hardware() -> dict:
    "What the project's records say of the machine."
    sys.path.insert(0, str(ROOT))
    from flowbook.records import hardware

    return hardware()


def main(argv=None) -> None:
    "Try pages, one by one, and write the record after each."
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('record', type=Path)
    parser.add_argument('pages', nargs='*', help='such as 06_coupling')
    for name, default, help in [
        ('sample', 0, 'mutants of a page; 0 for all'),
        ('seed', 0, 'of the sample'),
        ('lean', 6.0, 'seconds of the first round'),
        ('seconds', 200.0, 'of the second round'),
        ('tests', 0.0, 'seconds for a survivor'),
    ]:
        parser.add_argument(f'--{name}', type=type(default), default=default, help=help)
    parser.add_argument('--again', action='store_true', help='unchanged pages, too')
    options = parser.parse_args(argv)
    path, failed = options.record, []
    pages = json.loads(path.read_text())['pages'] if path.exists() else {}
    for page in options.pages:
        if pages.get(page, {}).get('digest') == digest(page) and not options.again:
            continue
        print(page, flush=True)
        try:
            pages[page] = measure(page, options, pages.get(page, {}))
        except RuntimeError as e:
            print(f'  {e}', flush=True)
            failed.append(page)
            continue
        print({k: v for k, v in pages[page].items() if isinstance(v, int)}, flush=True)
        record = dict(totals=totals(pages), hardware=forked(hardware, 60))
        record |= dict(pages=dict(sorted(pages.items())))
        text = json.dumps(record, indent=1, ensure_ascii=False) + '\n'
        path.write_text(text, encoding='utf-8')
    if not options.pages:
        print(*listing(json.loads(path.read_text())), sep='\n')
    if failed:
        sys.exit(f'not tried: {", ".join(failed)}')


if __name__ == '__main__':
    main()
