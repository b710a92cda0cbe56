//! The VGA text screen as people see it: what changed in its memory since the last look, as plain lines or for a terminal.
//!
//! A cell is a character of code page 437 and an attribute: colours of foreground (bits 0..3) and background (bits 4..6).

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Characters in a row.
const COLUMNS: usize = 80;
/// Rows.
const ROWS: usize = 25;
/// Bytes of the screen's memory that are seen.
pub const SCREEN_BYTES: usize = COLUMNS * ROWS * 2;

/// Light grey on black.
const NORMAL: u8 = 0x07;
/// Code page 437 from 0x80 on.
const UPPER_HALF: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";
/// Terminals number the colours with red and blue changed.
const COLOURS: [u8; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// One cell: character and attribute.
type Cell = [u8; 2];
const BLANK: Cell = [b' ', NORMAL];

/// What was shown so far.
#[derive(Clone, Debug)]
pub struct Screen {
    shown: Vec<Cell>,
    cursor: Option<usize>,
    /// The last line shown has no end yet.
    open: bool,
    cleared: bool,
}

impl Screen {
    /// Nothing was shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self { shown: vec![BLANK; COLUMNS * ROWS], cursor: None, open: false, cleared: false }
    }

    /// What is new in `memory` ([`SCREEN_BYTES`] bytes), as lines: scrolled text continues, text that was overwritten is shown
    /// again. Attributes are left out.
    pub fn lines(&mut self, memory: &[u8]) -> String {
        let cells = cells(memory);
        if cells == self.shown {
            return String::new();
        }
        let (old, new) = (rows(&self.shown), rows(&cells));
        self.shown = cells;
        let mut out = String::new();
        let Some(last) = last_row(&new) else {
            self.close(&mut out);
            return out;
        };
        match last_row(&old).filter(|_| self.open).and_then(|last_old| continued(&old, &new, last_old)) {
            Some((row, column)) => {
                let same = new.get(row).map_or(&[][..], Vec::as_slice);
                text(&mut out, same.get(column..).unwrap_or(&[]));
                for row in new.iter().take(last + 1).skip(row + 1) {
                    out.push('\n');
                    text(&mut out, row);
                }
            }
            None => {
                self.close(&mut out);
                let changed = new.iter().zip(&old).take(last + 1).filter(|(new, old)| new != old);
                for (number, (row, _)) in changed.enumerate() {
                    if number > 0 {
                        out.push('\n');
                    }
                    text(&mut out, row);
                }
            }
        }
        self.open = true;
        out
    }

    /// Ends the line that is open, at the end of all.
    pub fn close(&mut self, out: &mut String) {
        if core::mem::take(&mut self.open) {
            out.push('\n');
        }
    }

    /// What a terminal must be told to show `memory` with the cursor at a cell, counted from the top left.
    pub fn terminal(&mut self, memory: &[u8], cursor: usize) -> String {
        let cells = cells(memory);
        let mut out = String::new();
        if cells == self.shown && self.cursor == Some(cursor) && self.cleared {
            return out;
        }
        if !self.cleared {
            out.push_str("\x1b[0m\x1b[2J");
            self.cleared = true;
        }
        let mut attribute = NORMAL;
        let mut at = None;
        for (place, (new, old)) in cells.iter().zip(&self.shown).enumerate() {
            if new == old {
                continue;
            }
            if at != Some(place) || place % COLUMNS == 0 {
                out.push_str(&format!("\x1b[{};{}H", place / COLUMNS + 1, place % COLUMNS + 1));
            }
            let [character, wanted] = *new;
            if wanted != attribute {
                attribute = wanted;
                colour(&mut out, attribute);
            }
            out.push(glyph(character));
            at = Some(place + 1);
        }
        if attribute != NORMAL {
            out.push_str("\x1b[0m");
        }
        if cursor < COLUMNS * ROWS {
            out.push_str(&format!("\x1b[{};{}H", cursor / COLUMNS + 1, cursor % COLUMNS + 1));
        }
        self.shown = cells;
        self.cursor = Some(cursor);
        out
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

fn cells(memory: &[u8]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = memory.as_chunks::<2>().0.to_vec();
    cells.resize(COLUMNS * ROWS, BLANK);
    for [character, attribute] in &mut cells {
        if matches!(*character, 0 | 0xFF) {
            *character = b' ';
        }
        // A blank is a blank whatever its foreground.
        if *character == b' ' && *attribute & 0x70 == 0 {
            *attribute = NORMAL;
        }
    }
    cells
}

/// The rows' characters without the blanks at their ends.
fn rows(cells: &[Cell]) -> Vec<Vec<u8>> {
    let row = |row: &[Cell]| {
        let length = row.iter().rposition(|[character, _]| *character != b' ').map_or(0, |last| last + 1);
        row.iter().take(length).map(|[character, _]| *character).collect()
    };
    cells.chunks(COLUMNS).map(row).collect()
}

fn last_row(rows: &[Vec<u8>]) -> Option<usize> {
    rows.iter().rposition(|row| !row.is_empty())
}

/// Where the text that was shown ends in the new rows (row and column), if they begin with it, scrolled up or not.
fn continued(old: &[Vec<u8>], new: &[Vec<u8>], last: usize) -> Option<(usize, usize)> {
    let tail = old.get(last)?;
    (0..=last).find_map(|scrolled| {
        let kept = last - scrolled;
        let above = old.iter().skip(scrolled).take(kept).eq(new.iter().take(kept));
        (above && new.get(kept)?.starts_with(tail)).then_some((kept, tail.len()))
    })
}

fn text(out: &mut String, characters: &[u8]) {
    out.extend(characters.iter().map(|&character| glyph(character)));
}

fn glyph(character: u8) -> char {
    match character {
        0x20..=0x7E => char::from(character),
        0x80.. => UPPER_HALF.chars().nth(usize::from(character & 0x7F)).unwrap_or('?'),
        _ => '·', // the symbols in place of control characters
    }
}

fn colour(out: &mut String, attribute: u8) {
    let number = |colour: u8| COLOURS.get(usize::from(colour & 7)).copied().unwrap_or(7);
    let foreground = if attribute & 8 != 0 { 90 } else { 30 } + number(attribute);
    out.push_str(&format!("\x1b[0;{};{}m", foreground, 40 + number(attribute >> 4)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(lines: &[&str]) -> Vec<u8> {
        let mut memory = [0, 7].repeat(COLUMNS * ROWS);
        for (row, line) in lines.iter().enumerate() {
            for (column, byte) in line.bytes().enumerate() {
                memory[(row * COLUMNS + column) * 2] = byte;
            }
        }
        memory
    }

    #[test]
    fn lines_go_on_where_they_ended() {
        let mut screen = Screen::new();
        assert_eq!(screen.lines(&memory(&[])), "");
        assert_eq!(screen.lines(&memory(&["boot", "$ "])), "boot\n$");
        assert_eq!(screen.lines(&memory(&["boot", "$ ls"])), " ls");
        assert_eq!(screen.lines(&memory(&["boot", "$ ls"])), "");
        assert_eq!(screen.lines(&memory(&["boot", "$ ls", "a", "b"])), "\na\nb");
        assert_eq!(screen.lines(&memory(&["a", "b", "c", "$"])), "\nc\n$"); // scrolled
        assert_eq!(screen.lines(&memory(&[])), "\n");
        assert_eq!(screen.lines(&memory(&["new"])), "new");
    }

    #[test]
    fn overwritten_text_is_shown_again() {
        let mut screen = Screen::new();
        assert_eq!(screen.lines(&memory(&["test 1", "pass"])), "test 1\npass");
        assert_eq!(screen.lines(&memory(&["test 2", "pass"])), "\ntest 2");
    }

    #[test]
    fn a_terminal_gets_what_changed() {
        let mut screen = Screen::new();
        assert_eq!(screen.terminal(&memory(&["ab"]), 2), "\x1b[0m\x1b[2J\x1b[1;1Hab\x1b[1;3H");
        let mut changed = memory(&["aX", "y"]);
        changed[3] = 0x1C; // light red on blue
        assert_eq!(screen.terminal(&changed, 81), "\x1b[1;2H\x1b[0;91;44mX\x1b[2;1H\x1b[0;37;40my\x1b[2;2H");
        assert_eq!(screen.terminal(&changed, 81), "");
    }

    #[test]
    fn code_page_437_is_complete() {
        assert_eq!(UPPER_HALF.chars().count(), 128);
        assert_eq!((glyph(0xDB), glyph(0xC4), glyph(b'~')), ('█', '─', '~'));
    }

    #[test]
    fn short_memory_is_blank() {
        assert_eq!(Screen::new().lines(b"x\x07"), "x");
    }
}
