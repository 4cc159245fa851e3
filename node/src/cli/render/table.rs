//! Tables: columns as wide as what is in them, and on a terminal no wider than it is.
//!
//! Where a table is wider than its terminal, in this order:
//! 1. columns in which all rows say the same are told once, under the table;
//! 2. sentences are wrapped, addresses lose their beginning, payloads and topics their end (`…`);
//! 3. what still has no room stands on a line of its own below its row, set in.
//!
//! Numbers, times, ids and names are never cut. Without a terminal a row is one line, whole, for
//! whoever reads it with a program.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;
/// What is folded below its row is set in by so much.
const INDENT: usize = 2;
/// A sentence is not wrapped narrower than this, nor an address cut shorter while rows still come,
/// nor a payload.
const WORDS_MIN: usize = 24;
const PATH_MIN: usize = 20;
const CUT_MIN: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Red,
    Green,
    Yellow,
    Blue,
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    is_right: bool,
    /// ANSI's number.
    style: Option<&'static str>,
}

impl Cell {
    pub fn new(text: impl Display) -> Cell {
        Cell { text: text.to_string(), is_right: false, style: None }
    }

    pub fn right(mut self) -> Cell {
        self.is_right = true;
        self
    }

    pub fn fg(mut self, color: Color) -> Cell {
        self.style = Some(match color {
            Color::Red => "31",
            Color::Green => "32",
            Color::Yellow => "33",
            Color::Blue => "34",
        });
        self
    }

    pub fn bold(mut self) -> Cell {
        self.style = Some("1");
        self
    }
}

/// What may become of a column for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    /// An address or a path: the end says most.
    Path,
    /// A payload, a topic: the beginning says most.
    Cut,
    /// Sentences and lists.
    Words,
}

fn kind(head: &str) -> Kind {
    match head {
        "ADDRESS" | "BY" | "CHILD" | "FILE" | "KEY" | "MISSING" | "NODE" | "ORIGIN" | "OWNER" | "PARENT" | "SOURCE"
        | "TARGET" | "URL" => Kind::Path,
        "CONDITION" | "DATA" | "ON" | "SUBJECT" | "TOPIC" | "VIA" => Kind::Cut,
        "BECAUSE" | "CA" | "CERTIFICATE" | "CLOCKS" | "DETAIL" | "DEVICES" | "DONE" | "FOUND" | "PLACE" | "RULES"
        | "RUNNING" | "SERVICES" | "THEN" | "TITLE" | "TOKEN" | "WHAT" | "WHEN" | "WHERE" | "WHO" | "WHY" | "WITH" => {
            Kind::Words
        }
        _ => Kind::Whole,
    }
}

pub struct Table {
    head: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    width: Option<usize>,
    is_head_shown: bool,
    /// Rows come in several tables, which must stand under each other: columns are at least so wide,
    /// and no row changes what becomes of the others.
    floors: Option<&'static [usize]>,
}

/// One column on one of a row's lines.
struct Place {
    column: usize,
    kind: Kind,
    width: usize,
}

impl Table {
    /// `width`: the terminal's columns.
    pub fn new(head: Vec<Cell>, width: Option<usize>) -> Table {
        Table { is_head_shown: !head.is_empty(), head, rows: Vec::new(), width, floors: None }
    }

    pub fn add_row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// One of several tables that make one; only the first shows its head.
    pub fn one_of_many(mut self, is_first: bool, floors: &'static [usize]) -> Table {
        self.is_head_shown &= is_first;
        self.floors = Some(floors);
        self
    }

    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let (lines, same) = self.layout();
        if self.is_head_shown {
            row(&self.head, &lines, out)?;
        }
        for cells in &self.rows {
            row(cells, &lines, out)?;
        }
        let told = same.iter().map(|i| (&self.head[*i].text, self.rows[0][*i].text.trim()));
        let told: Vec<String> = told.filter(|t| !t.1.is_empty()).map(|(head, text)| format!("{head} {text}")).collect();
        if told.is_empty() { Ok(()) } else { writeln!(out, "in all rows: {}", told.join(", ")) }
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &Cell> {
        let head = self.head.get(column).filter(|_| self.is_head_shown || self.floors.is_some());
        head.into_iter().chain(self.rows.iter().filter_map(move |r| r.get(column)))
    }

    fn kind(&self, column: usize, columns: usize) -> Kind {
        match self.head.get(column) {
            Some(head) => kind(&head.text),
            // Words with what they stand for.
            None if column > 0 && column + 1 == columns => Kind::Words,
            None => Kind::Whole,
        }
    }

    /// The lines of a row, and the columns that are told under the table.
    fn layout(&self) -> (Vec<Vec<Place>>, Vec<usize>) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.head.len());
        let floor = |i: usize| self.floors.and_then(|f| f.get(i)).copied().unwrap_or(0);
        let natural = |i: usize| self.cells(i).map(|c| widest(&c.text)).max().unwrap_or(0).max(floor(i));
        let full: Vec<usize> = (0..columns).map(natural).collect();
        let place = |column: usize, width: usize| Place { column, kind: self.kind(column, columns), width };
        let whole = |full: &[usize]| (0..columns).map(|i| place(i, full[i])).collect::<Vec<_>>();
        let Some(width) = self.width.filter(|w| sum(&full) > *w) else { return (vec![whole(&full)], Vec::new()) };

        let least: Vec<usize> = (0..columns).map(|i| self.least(i, full[i], columns)).collect();
        let mut shown: Vec<usize> = (0..columns).collect();
        let mut same: Vec<usize> = Vec::new();
        let told_once = |i: usize| self.floors.is_none() && i > 0 && self.is_same(i);
        let says_nothing = |i: usize| self.rows.first().is_some_and(|r| ["-", "0", ""].contains(&r[i].text.trim()));
        for only_nothing in [true, false] {
            for i in (0..columns).rev() {
                let now: Vec<usize> = shown.iter().map(|i| least[*i]).collect();
                let may = sum(&now) > width && shown.contains(&i) && told_once(i);
                if may && (!only_nothing || says_nothing(i)) {
                    shown.retain(|s| *s != i);
                    same.push(i);
                }
            }
        }
        same.sort_unstable();

        let mut lines: Vec<Vec<Place>> = vec![Vec::new()];
        let mut used = 0;
        for i in shown {
            let line = lines.last_mut().expect("there is one from the start");
            let more = least[i] + if line.is_empty() { 0 } else { GAP };
            if used + more > width && !line.is_empty() {
                used = INDENT + least[i];
                lines.push(vec![place(i, least[i])]);
            } else {
                used += more;
                line.push(place(i, least[i]));
            }
        }
        for (n, line) in lines.iter_mut().enumerate() {
            let widths: Vec<usize> = line.iter().map(|p| p.width).collect();
            let mut spare = width.saturating_sub(sum(&widths) + if n > 0 { INDENT } else { 0 });
            // Addresses last: their end says most of it anyhow.
            line.sort_by_key(|p| p.kind == Kind::Path);
            for place in line.iter_mut() {
                let at_most = place.width + spare.min(full[place.column] - place.width);
                // An address that has lost its beginning may be shorter than it had to be.
                let used = || self.cells(place.column).map(|c| fitted(&c.text, place.kind, at_most)).max().unwrap_or(0);
                let now = if self.floors.is_some() { at_most } else { used().max(place.width) };
                spare -= now - place.width;
                place.width = now;
            }
            line.sort_by_key(|p| p.column);
        }
        (lines, same)
    }

    fn least(&self, column: usize, full: usize, columns: usize) -> usize {
        let head = self.head.get(column).map_or(0, |c| c.text.width());
        let least = match self.kind(column, columns) {
            Kind::Whole => full,
            Kind::Words => WORDS_MIN,
            Kind::Cut => CUT_MIN,
            Kind::Path if self.floors.is_some() => PATH_MIN,
            Kind::Path => self.cells(column).map(|c| widest(&shortest(&c.text))).max().unwrap_or(0),
        };
        least.max(head).min(full)
    }

    fn is_same(&self, column: usize) -> bool {
        let mut texts = self.rows.iter().map(|r| r.get(column).map(|c| c.text.trim()));
        let first = texts.next();
        self.rows.len() > 1 && texts.all(|t| Some(t) == first) && !self.head[column].text.is_empty()
    }
}

fn sum(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn widest(text: &str) -> usize {
    text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// A row's cells on its lines, each of which may take several of the screen's.
fn row(cells: &[Cell], lines: &[Vec<Place>], out: &mut dyn Write) -> io::Result<()> {
    for (n, line) in lines.iter().enumerate() {
        let blank = Cell::new("");
        let fitted: Vec<(&Cell, Vec<String>)> = line
            .iter()
            .map(|p| cells.get(p.column).unwrap_or(&blank))
            .zip(line)
            .map(|(cell, p)| (cell, fit(&cell.text, p.kind, p.width)))
            .collect();
        let height = fitted.iter().map(|(_, texts)| texts.len()).max().unwrap_or(0).max(1);
        for y in 0..height {
            let mut text = " ".repeat(if n > 0 { INDENT } else { 0 });
            for (x, ((cell, texts), place)) in fitted.iter().zip(line).enumerate() {
                let part = texts.get(y).map_or("", String::as_str);
                let pad = " ".repeat(place.width.saturating_sub(part.width()));
                let (before, after) = if cell.is_right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                let part = match cell.style.filter(|_| !part.is_empty()) {
                    Some(style) => Cow::Owned(format!("\u{1b}[{style}m{part}\u{1b}[0m")),
                    None => Cow::Borrowed(part),
                };
                let gap = if x > 0 { GAP } else { 0 };
                text.push_str(&format!("{:gap$}{before}{part}{after}", ""));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
    }
    Ok(())
}

fn fitted(text: &str, kind: Kind, width: usize) -> usize {
    fit(text, kind, width).iter().map(|line| line.width()).max().unwrap_or(0)
}

fn fit(text: &str, kind: Kind, width: usize) -> Vec<String> {
    if widest(text) <= width {
        return text.lines().map(str::to_owned).collect();
    }
    match kind {
        Kind::Whole => text.lines().map(str::to_owned).collect(),
        Kind::Words => text.lines().flat_map(|line| wrap(line, width)).collect(),
        Kind::Path if text.contains('/') => vec![path(text, width)],
        Kind::Path | Kind::Cut => vec![cut(text, width)],
    }
}

/// The last segment alone: `…/xuefu-yuan`.
fn shortest(text: &str) -> Cow<'_, str> {
    match text.rfind('/').filter(|at| *at > 1 && at + 1 < text.len()) {
        Some(at) => Cow::Owned(format!("…{}", &text[at..])),
        None => Cow::Borrowed(text),
    }
}

/// Without as many of the first segments as must be.
fn path(text: &str, width: usize) -> String {
    let ends = text.match_indices('/').map(|(at, _)| &text[at..]);
    match ends.filter(|end| end.len() > 1).find(|end| end.width() < width) {
        Some(end) => format!("…{end}"),
        None => {
            let mut room = width.saturating_sub(1);
            let fits = |c: &char| {
                let w = c.width().unwrap_or(0);
                let there = w <= room;
                room = room.saturating_sub(w);
                there
            };
            let tail: Vec<char> = text.chars().rev().take_while(fits).collect();
            format!("…{}", tail.iter().rev().collect::<String>())
        }
    }
}

/// At most so many columns wide, with `…` where something is missing.
pub fn cut(text: &str, columns_max: usize) -> String {
    if text.width() <= columns_max {
        return text.to_owned();
    }
    let mut room = columns_max.saturating_sub(1);
    let mut out: String = text
        .chars()
        .take_while(|c| {
            let w = c.width().unwrap_or(0);
            let there = w <= room;
            room = room.saturating_sub(w);
            there
        })
        .collect();
    out.push('…');
    out
}

/// In lines of at most `width` columns, broken at spaces; a word that is wider is broken itself.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        let used = line.width();
        if used == 0 || used + 1 + word.width() <= width {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
        // 中文 has no spaces.
        while lines.last().is_some_and(|l| l.width() > width) {
            let whole = lines.pop().unwrap_or_default();
            let mut used = 0;
            let at = whole.char_indices().find(|(_, c)| {
                used += c.width().unwrap_or(0);
                used > width
            });
            // One character at least, or this would not end.
            let first = whole.chars().next().map_or(0, char::len_utf8);
            let (head, tail) = whole.split_at(at.map_or(whole.len(), |(at, _)| at.max(first)));
            let tail = tail.to_owned();
            lines.push(head.to_owned());
            if tail.is_empty() {
                break;
            }
            lines.push(tail);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(head: &[&str], rows: &[&[&str]], width: Option<usize>) -> String {
        let mut table = Table::new(head.iter().map(Cell::new).collect(), width);
        for row in rows {
            table.add_row(row.iter().map(Cell::new));
        }
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROWS: &[&[&str]] = &[
        &["7", "chengdu/liucheng/guanghua", "routine", "三号门堆了垃圾，没有人来收拾，味道很大"],
        &["1,208", "chengdu/liucheng/guanghua/xuefu-yuan", "routine", "a lamp is out of order since yesterday"],
    ];
    const HEAD: &[&str] = &["POS", "ORIGIN", "PRIORITY", "TITLE"];

    #[test]
    fn without_a_terminal_a_row_is_one_line_and_whole() {
        let want = "\
POS    ORIGIN                                PRIORITY  TITLE
7      chengdu/liucheng/guanghua             routine   三号门堆了垃圾，没有人来收拾，味道很大
1,208  chengdu/liucheng/guanghua/xuefu-yuan  routine   a lamp is out of order since yesterday
";
        assert_eq!(table(HEAD, ROWS, None), want);
        assert_eq!(table(HEAD, ROWS, Some(93)), want);
    }

    #[test]
    fn what_does_not_fit_is_wrapped_or_cut_by_what_it_is() {
        let want = "\
POS    ORIGIN        PRIORITY  TITLE
7      …/guanghua    routine   三号门堆了垃圾，没有人来
                               收拾，味道很大
1,208  …/xuefu-yuan  routine   a lamp is out of order
                               since yesterday
";
        assert_eq!(table(HEAD, ROWS, Some(56)), want);
        let want = "\
POS    ORIGIN                          PRIORITY  TITLE
7      chengdu/liucheng/guanghua       routine   三号门堆了垃圾，没有人来收拾，味道很大
1,208  …/liucheng/guanghua/xuefu-yuan  routine   a lamp is out of order since yesterday
";
        assert_eq!(table(HEAD, ROWS, Some(88)), want);
    }

    #[test]
    fn a_column_that_says_one_thing_is_told_once_where_room_is_wanted() {
        let want = "\
POS    ORIGIN        TITLE
7      …/guanghua    三号门堆了垃圾，没有人来
                     收拾，味道很大
1,208  …/xuefu-yuan  a lamp is out of order
                     since yesterday
in all rows: PRIORITY routine
";
        assert_eq!(table(HEAD, ROWS, Some(46)), want);
    }

    #[test]
    fn the_rest_stands_below_its_row() {
        let rows: &[&[&str]] = &[&["7", "chengdu/liucheng", "urgent", "a lamp"], &["8", "chengdu", "routine", "so"]];
        let want = "\
POS  ORIGIN      PRIORITY
  TITLE
7    …/liucheng  urgent
  a lamp
8    chengdu     routine
  so
";
        assert_eq!(table(HEAD, rows, Some(26)), want);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_however_wide_that_is() {
        for width in 40..100 {
            let text = table(HEAD, ROWS, Some(width));
            assert!(text.lines().all(|l| l.width() <= width), "{width}\n{text}");
        }
    }

    #[test]
    fn nothing_of_a_sentence_is_lost_when_it_is_wrapped() {
        for text in ["", "a", "one two  three", "三号门堆了垃圾 and more", "averylongwordwithoutanyspace"] {
            for width in 2..20 {
                let lines = wrap(text, width);
                assert!(lines.iter().all(|l| l.width() <= width), "{width} {lines:?}");
                let without = |t: &str| t.replace(' ', "");
                assert_eq!(without(&lines.concat()), without(text), "{width}");
            }
        }
    }
}
