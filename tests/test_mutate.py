"Mutants of exported code: what is changed, and that the checks of a page notice."

import json
import sys
import warnings

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import mutate

RECORD = ROOT / 'benchmarks' / 'records' / 'mutants.json'

TOY = '''
def twist(x: int, context=None, size: int = 4, *, flip: bool = False):
    "A docstring 1."
    if size < 1:
        raise ValueError(f'size: expected {size - 1}')
    y = x.min() * 2.0
    y = y - net(y, context, scale=-0.001)  # Eq. (eq-toy)
    rows.append(y)
    return y if flip or not size else -y


class Thing:
    def forward(self, z):
        return z.exp(), 0.0

    def __repr__(self):
        ax.plot(1 + 1, color=2)
        return 'a' + 'b'


print(1 + 1)
ax[0].fill(2 * 3)
'''


def changed(operator):
    "What an operator makes of the toy."
    found = [m for m in mutate.mutants(TOY) if m.operator == operator]
    return [f'{m.line}: {m.original} → {m.mutant}' for m in found]


@pytest.mark.parametrize(
    'operator, expected',
    [
        (
            'sign',
            ['7: y - net(y, context, scale=-0.001) → y + net(', '7: -0.001', '9: -y'],
        ),
        ('factor', ['6: x.min() * 2.0 → x.min() / 2.0', '7: y = y - net']),
        ('comparison', ['4: size < 1 → size <= 1', '4: size < 1 → size >= 1']),
        (
            'constant',
            ['4: 1 → 2', '6: 2.0 → 4.0', '7: 0.001 → 0.1', '14: 0.0 → 1.0'],
        ),
        ('default', ['2: 4 → 5', '2: False → True']),
        ('name', ['6: x.min → x.max', '14: z.exp → z.log']),
        ('context', ['7: context → None if context is None else 0 * context']),
        ('keyword', ['7: net(…, scale=-0.001) → net(…)']),
        ('guard', ['4: if size < 1: … → if False: …']),
        ('logic', ['9: flip or not size → flip and', '9: not size → size']),
        (
            'statement',
            ['7: y = y - net(y, context, scale=-0.001) → pass', '8: rows.append'],
        ),
        ('no-op', ['2: def twist: … ', '13: def forward: … ']),
    ],
)
def test_an_operator_changes_what_it_says_and_nothing_else(operator, expected):
    found = changed(operator)
    assert len(found) == len(expected), found
    for text in expected:
        assert any(f.startswith(text) for f in found), (text, found)


def test_each_mutant_is_another_program_and_the_toy_stays_as_it_was():
    found = list(mutate.mutants(TOY))
    sources = {m.source for m in found}
    assert len(sources) == len(found)
    for m in found:
        compile(m.source, 'toy', 'exec')
    assert "return (z, 0 * z)" in found[[m.line for m in found].index(13)].source
    assert [m.source for m in mutate.mutants(TOY)] == [m.source for m in found]


def test_labels_belong_to_the_lines_that_they_name():
    cells = [mutate.Cell('a', TOY, True)]
    by_label = [m for m in mutate.mutants_of(cells) if 'eq-toy' in m.equations]
    assert by_label and {m.line for m in by_label} == {7}
    few = mutate.sample(mutate.mutants_of(cells), cells, 5, seed=1)
    assert len(few) == 5 and sum('eq-toy' in m.equations for m in few) >= 2


# What the harness says of a page of which we know the answer.
PAGE = [
    mutate.Cell('def', TOY.split('\n\n\n')[1], True),
    mutate.Cell(
        'use', "import torch\nx, log_det = Thing().forward(torch.ones(2))", False
    ),
    mutate.Cell('check', 'assert x[0] > 2.7', False),
]


def test_the_fate_of_a_mutant_is_the_first_cell_that_fails():
    given = mutate.mutants_of(PAGE)
    fates, seconds = mutate.on_page(PAGE, given, lean=6.0, limit=0)
    found = {m.operator: f['by'] for m, f in zip(given, fates)}
    assert found == {'no-op': 'check', 'name': 'check', 'constant': None}
    assert 0 <= seconds < 60
    unused = [PAGE[0], mutate.Cell('idle', 'pass', False)]
    fates, _ = mutate.on_page(unused, given, lean=6.0, limit=0)
    assert all(f == dict(by=None, never=True) for f in fates)


def test_what_the_quick_cells_leave_is_tried_on_the_others(monkeypatch):
    given = mutate.mutants_of(PAGE)
    monkeypatch.setattr(mutate, 'longest', lambda *_: [2])  # the only check
    undecided, _ = mutate.on_page(PAGE, given, lean=6.0, limit=0)
    assert all(f == dict(by=None, slow=True) for f in undecided)
    decided, _ = mutate.on_page(PAGE, given, lean=6.0, limit=60)
    assert sorted(f['by'] or '' for f in decided) == ['', 'check', 'check']


def test_a_check_is_tried_statement_by_statement():
    check = mutate.Cell('c', '# why\nx = 1\n\n@d\ndef f():\n    pass\n\n\nf(x)', False)
    parts = mutate.pieces([PAGE[0], check])
    assert [p.name for p in parts] == ['def', 'c', 'c', 'c']
    assert [p.source.strip() for p in parts[1:3]] == [
        '# why\nx = 1',
        '@d\ndef f():\n    pass',
    ]
    assert parts[3].source == 8 * '\n' + 'f(x)'  # lines keep their numbers


def test_the_longest_cells_are_left_out_until_the_others_are_quick():
    names = ['a', 'b', 'c', 'd']
    cells = [mutate.Cell(n, 'pass', exported=n == 'd') for n in names]
    assert mutate.longest(cells, [1.0, 5.0, 2.0, 9.0], 17.0) == []
    assert mutate.longest(cells, [1.0, 5.0, 2.0, 9.0], 12.0) == [1]
    assert mutate.longest(cells, [1.0, 5.0, 2.0, 9.0], 11.0) == [1, 2]


def test_a_page_that_fails_unchanged_is_an_error():
    wrong = [*PAGE, mutate.Cell('wrong', 'assert False', False)]
    with pytest.raises(RuntimeError, match='the page itself fails.*wrong'):
        mutate.on_page(wrong, [], lean=6.0, limit=0)


def test_an_endless_mutant_is_slow_and_not_caught():
    endless = mutate.Mutant('sign', 1, '', '', 'while True: pass', None)
    run = mutate.forked(lambda: mutate.Run(PAGE).fate(0, endless.source), 0.5)
    assert run is None


# Real pages.
def test_the_checks_of_a_page_catch_most_of_what_is_changed():
    cells, labels = mutate.read('00c_nets')
    cells = mutate.pieces(cells)
    found = mutate.mutants_of(cells)
    given = mutate.sample(found, cells, 20, seed=0)
    fates, _ = mutate.on_page(cells, given, lean=6.0, limit=0)
    assert len(found) > 100 and labels == ['eq-protocol']
    assert sum(bool(f['by']) for f in fates) >= CAUGHT * len(given)


CAUGHT = 0.5  # of the mutants of that page


def test_a_survivor_meets_the_tests_in_a_copy_of_the_package(tmp_path, monkeypatch):
    cells, _ = mutate.read('00c_nets')
    cell = next(c for c in cells if 'def start_at_zero' in c.source)
    files = mutate.files_for('00c_nets', cell.source)
    assert 0 < len(files) <= 3 and not any('test_mutate' in f for f in files)
    small = tmp_path / 'test_small.py'
    small.write_text(SMALL)
    monkeypatch.setattr(mutate, 'files_for', lambda *_: [str(small)])
    fates = []
    for old, new in [('zeros_', 'ones_'), ('all weights', 'All weights')]:
        changed = cell.source.replace(old, new)
        mutant = mutate.Mutant('name', 1, '', '', changed, None)
        fates.append(mutate.on_tests('00c_nets', cell, mutant, 60)['by'])
    assert fates[0].endswith('test_small.py::test_zero') and fates[1] is None


SMALL = '''
def test_zero():
    from flowbook.nets import MLP
    assert not MLP(1, 1).layers[-1].bias.any()
'''


def test_the_record_adds_up_and_tells_which_pages_have_changed():
    record = json.loads(RECORD.read_text(encoding='utf-8'))
    pages = record['pages']
    assert record['totals'] == mutate.totals(pages)
    for name, page in pages.items():
        caught = page['caught_on_page'] + page['caught_by_tests']
        assert page['tried'] == caught + len(page['survivors']) <= page['mutants'], name
    changed = [n for n, page in pages.items() if page['digest'] != mutate.digest(n)]
    if changed:
        warnings.warn(
            f'changed since their mutants were tried: {changed}', stacklevel=1
        )


def test_without_pages_the_survivors_of_a_record_are_listed(capsys):
    mutate.main([str(RECORD)])
    told = capsys.readouterr().out
    record = json.loads(RECORD.read_text(encoding='utf-8'))
    open_ = [r for p in record['pages'].values() for r in p['survivors']]
    assert told.count(' → ') >= sum('reason' not in r for r in open_) > 0
    assert all(f'\n{name}: ' in told for name in record['pages'])
