"""How a CSV file is written: found out from its beginning, or given; refused where two ways are as good."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedstream.errors import SettingError
from fedstream.files.values import NUMBER

SAMPLE_BYTES = 2**18
SAMPLE_LINES = 1000
BLANKS = " "  # a run of blanks and tabs between values
DELIMITERS = {",": ",", ";": ";", "tab": "\t", "|": "|", "blanks": BLANKS}
SHOWN = {"\t": "tabs", BLANKS: "blanks"}
DECIMALS = {".": "decimal point", ",": "decimal comma"}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"

Line = tuple[int, list[str]]  # its number, and its values


@dataclass(frozen=True)
class Given:
    """What a user has said of a CSV file; None is found out."""

    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: str | None = None  # the number of a line, or none
    skip_rows: int | None = None


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str
    decimal: str
    encoding: str
    header: int | None  # the line that holds the names of the columns
    first_row: int  # the line from which on rows are read

    @property
    def words(self) -> str:
        """The same as a user reads it."""
        names = f"names in line {self.header}" if self.header else "no line of names"
        begin = "" if self.first_row == (self.header or 0) + 1 else f", rows from line {self.first_row}"
        mark = DECIMALS[self.decimal]
        return f"{SHOWN.get(self.delimiter, self.delimiter)} between values, {mark}, {self.encoding}, {names}{begin}"

    def cut(self, text: str) -> list[str]:
        """Return the values of a line without blanks around them; a blank line has none.

        Raises:
            csv.Error: a quote is not closed on its line, or text follows a closing quote.
        """
        if self.delimiter == BLANKS:
            text = re.sub(r"[ \t]+", " ", text.strip())
        elif not text.strip() and self.delimiter not in text:
            return []
        if '"' not in text:
            return [value.strip() for value in text.split(self.delimiter)] if text else []
        # Each line by itself: with one reader for all, a quote that is not closed would swallow the next lines.
        cut = csv.reader([text.rstrip("\n")], delimiter=self.delimiter, strict=True, skipinitialspace=True)
        return [value.strip() for value in next(cut, [])]


def recognise(path: Path, given: Given) -> Dialect:
    """Return how a file is written.

    Raises:
        SettingError: two ways are as good; the text names the option that decides.
    """
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    encoding = given.encoding or _encoding(path, sample)
    try:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    except LookupError as error:
        raise SettingError(f"--encoding is {encoding!r}; expected utf-8, cp1252, utf-16 …") from error
    lines = re.split(r"\r\n|\n|\r", text)
    if len(sample) == SAMPLE_BYTES:
        lines.pop()  # the sample has a part of it only
    numbered = [(i, line) for i, line in enumerate(lines[:SAMPLE_LINES], start=1) if line.strip()]
    start = int(given.header) if given.header and given.header != "none" else 1
    seen = [(i, line) for i, line in numbered if i >= start]
    delimiter = given.delimiter or _delimiter(path, [line for _, line in seen])
    plain = Dialect(delimiter, ".", encoding, None, 1)
    table = [(i, values) for i, values in ((i, _cut(plain, line)) for i, line in seen) if values]
    header, first_row = _header(path, table, given)
    for i, line in seen:
        if i < first_row:
            _expect_cut(plain, line, f"{path}, line {i}")
        if i == header and not given.delimiter:
            _expect_no_better(path, plain, line)
    decimal = given.decimal or _decimal(path, [line for line in table if line[0] >= first_row])
    return Dialect(delimiter, decimal, encoding, header, first_row)


def _cut(dialect: Dialect, text: str) -> list[str]:
    try:
        return dialect.cut(text)
    except csv.Error:
        return text.split(dialect.delimiter)  # it is told when it is read


def _expect_cut(dialect: Dialect, text: str, where: str) -> None:
    """Refuse a line that may be the one of the names, and cannot be cut: another one would be taken for it."""
    try:
        dialect.cut(text)
    except csv.Error as error:
        raise SettingError(f"{where}: {cannot_be_cut(text, error)}") from error


def cannot_be_cut(text: str, error: csv.Error) -> str:
    """Return what is said of a line that cannot be cut into values."""
    expected = "expected a quote at both ends of a value or at neither, and no line break inside"
    return f"{text.rstrip()!r:.100} cannot be cut into values ({error}); {expected}"


def _is_number(cell: str) -> bool:
    return re.fullmatch(NUMBER, cell, re.ASCII) is not None


def _encoding(path: Path, sample: bytes) -> str:
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        raise SettingError(f"{path} has NUL bytes; expected text: say in which encoding, such as --encoding utf-16-le")
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(sample)
    except UnicodeDecodeError:
        try:
            sample.decode("cp1252")
        except UnicodeDecodeError as error:
            got = f"byte 0x{sample[error.start]:02x}"
            msg = f"{path}: {got} is neither utf-8 nor cp1252; say which encoding: --encoding latin-1, cp850 …"
            raise SettingError(msg) from error
        return "cp1252"
    return "utf-8"


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    """Return what cuts the lines into as many values as their header, most of them numbers."""
    scores: dict[str, tuple[bool, float]] = {}
    everywhere = []  # what cuts each line into as many values
    for delimiter in DELIMITERS.values():
        table = [_cut(Dialect(delimiter, ".", "", None, 1), line) for line in lines]
        counts = Counter(map(len, table))
        width = max(counts, key=lambda count: (counts[count], count), default=0)
        if width < 2:
            continue
        rows = [values for values in table if len(values) == width]
        cells = [cell for values in rows for cell in values]
        share = sum(map(_is_number, cells)) / len(cells) * len(rows) / len(table)
        heads = [len(values) for values in table if not any(map(_is_number, values))]
        # Where nothing is a number, any row looks like a line of names.
        has_names = share > 0 and any(width - 1 <= count <= width and count > 1 for count in heads)
        scores[delimiter] = (has_names, share)
        everywhere += [delimiter] if len(counts) == 1 else []
    if not scores:  # one column, or a header alone beside such rows
        head = lines[0] if lines else ""
        return next((sign for sign in DELIMITERS.values() if sign != BLANKS and sign in head), ",")
    named = [delimiter for delimiter, (has_names, _) in scores.items() if has_names and delimiter != BLANKS]
    if named or "\t" in scores:
        scores.pop(BLANKS, None)  # a run of blanks hides missing values: only where nothing else is between values
    # Two signs that both cut rows and names alike are never told apart by a count.
    best = named if len(named) > 1 else [sign for sign, score in scores.items() if score == max(scores.values())]
    if best == [BLANKS]:
        best = sorted({BLANKS, *everywhere}, reverse=True)
    if len(best) > 1:
        raise _ambiguous(path, best)
    return best[0]


def _expect_no_better(path: Path, dialect: Dialect, names: str) -> None:
    """Refuse a delimiter if another one cuts the line of names into more; blanks, if another one cuts it at all."""
    count = 1 if dialect.delimiter == BLANKS else len(dialect.cut(names))
    others = [sign for sign in DELIMITERS.values() if sign not in (BLANKS, dialect.delimiter)]
    if better := [sign for sign in others if len(_cut(replace(dialect, delimiter=sign), names)) > count]:
        raise _ambiguous(path, [dialect.delimiter, *better])


def _ambiguous(path: Path, signs: Sequence[str]) -> SettingError:
    shown = " or ".join(SHOWN.get(sign, sign) for sign in signs)
    option = next(name for name, sign in DELIMITERS.items() if sign == signs[0])
    return SettingError(
        f"{path}: {shown} may stand between values; expected one: say which, such as --delimiter '{option}'"
    )


def _header(path: Path, table: Sequence[Line], given: Given) -> tuple[int | None, int]:
    """Return the line of the names, and the line from which on there are rows."""
    skip = given.skip_rows or 0
    if given.header == "none":
        return None, 1 + skip
    if given.header:
        return int(given.header), int(given.header) + 1 + skip
    if not table:
        return 1, 2 + skip
    counts = Counter(len(values) for _, values in table)
    width = max(counts, key=lambda count: (counts[count], count))
    rows = [(i, values) for i, values in table if len(values) == width]
    numeric = [j for j in range(width) if sum(_is_number(values[j]) for _, values in rows) * 2 >= len(rows)]
    numeric = numeric or [j for j in range(width) if any(_is_number(values[j]) for _, values in rows)]
    first = next((i for i, values in rows if any(_is_number(values[j]) for j in numeric)), rows[0][0] + 1)
    before = [(i, values) for i, values in table if i < first]
    if given.skip_rows:
        before = before[: -given.skip_rows]
    heads = [i for i, values in before if width - 1 <= len(values) <= width]
    heads = heads or [i for i, values in before if len(values) > 1 or width == 1][-1:]
    if len(heads) > 1:
        msg = (
            f"{path}: lines {heads[0]} to {heads[-1]} stand before the first row of numbers (line {first}); expected "
            f"one line of names: say which, and how many lines below it to leave out, such as --header {heads[0]} "
            f"--skip-rows {first - heads[0] - 1}"
        )
        raise SettingError(msg)
    if heads:
        return heads[0], heads[0] + 1 + skip
    return None, first


def _decimal(path: Path, table: Sequence[Line]) -> str:
    found: dict[str, tuple[int, str]] = {}
    commas = []
    for i, values in table:
        for cell in values:
            mark = "," if "," in cell else "." if "." in cell else ""
            if mark and _is_number(cell):
                found.setdefault(mark, (i, cell))
                commas += [cell] if mark == "," else []
    if len(found) > 1:
        places = " and ".join(f"{cell} in line {i}" for i, cell in sorted(found.values()))
        raise SettingError(f"{path}: {places}; expected one decimal mark: say which, --decimal . or --decimal ,")
    if commas and all(re.fullmatch(_THOUSANDS, cell) for cell in commas):
        i, cell = found[","]
        raise SettingError(
            f"{path}, line {i}: {cell} may be {cell.replace(',', '')} or {cell.replace(',', '.')}; say which, "
            "--decimal . or --decimal , (thousands may not be marked off)"
        )
    return next(iter(found), ".")
