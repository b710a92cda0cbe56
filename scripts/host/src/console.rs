//! Takes the stream of COM1 apart into the guest's bytes and the hypervisor's lines.
//!
//! A hypervisor line is `0x1e [gnomon LEVEL] text \n`; everything else is the guest's. A guest may print 0x1e itself, so only
//! the whole mark begins a hypervisor line.

/// What begins a hypervisor line.
const MARK: &[u8] = b"\x1e[gnomon ";
/// A line longer than this is handed on in pieces.
const LONGEST_LINE: usize = 4096;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the guest.
    Guest(&'a [u8]),
    /// A line of the hypervisor, without its mark and its end of line.
    Line(HypervisorLine),
}

/// A line of the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorLine {
    /// `error`, `warn`, `info`, `debug`, `trace`, or `exit` for the last line.
    pub level: String,
    /// What it says.
    pub text: String,
}

impl HypervisorLine {
    fn parse(line: &[u8]) -> Self {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        let (level, text) = line.split_once(']').unwrap_or(("info", line));
        Self { level: level.to_owned(), text: text.strip_prefix(' ').unwrap_or(text).to_owned() }
    }

    /// The code of the last line, `[gnomon exit] code=0x10 status=0 reason=...`.
    #[must_use]
    pub fn exit_code(&self) -> Option<u32> {
        u32::from_str_radix(self.of_the_end("code=0x")?, 16).ok()
    }

    /// The status with which the first guest ended itself, in the last line.
    #[must_use]
    pub fn guest_status(&self) -> Option<u32> {
        self.of_the_end("status=")?.parse().ok()
    }

    fn of_the_end(&self, key: &str) -> Option<&str> {
        let value = self.text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        value.filter(|_| self.level == "exit")
    }
}

/// The splitter. Feed it bytes in any portions.
#[derive(Debug, Default)]
pub struct Demux {
    /// Bytes of a mark that is not complete yet, or of a hypervisor line after its mark.
    held: Vec<u8>,
    in_line: bool,
}

impl Demux {
    /// Splits the next bytes.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = if self.in_line { self.feed_line(rest, sink) } else { self.feed_guest(rest, sink) };
        }
    }

    /// The stream has ended: whatever is held back comes out.
    pub fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.in_line) {
            sink(Piece::Line(HypervisorLine::parse(&held)));
        } else if !held.is_empty() {
            sink(Piece::Guest(&held));
        }
    }

    fn feed_line<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        self.held.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        if end.is_some() || self.held.len() > LONGEST_LINE {
            sink(Piece::Line(HypervisorLine::parse(&self.held)));
            self.held.clear();
            self.in_line = false;
        }
        end.map_or(&[], |end| &bytes[end + 1..])
    }

    fn feed_guest<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        if self.held.is_empty() {
            let start = bytes.iter().position(|&byte| byte == MARK[0]).unwrap_or(bytes.len());
            if start > 0 {
                sink(Piece::Guest(&bytes[..start]));
                return &bytes[start..];
            }
        }
        let wanted = MARK[self.held.len()];
        let (&byte, rest) = bytes.split_first().unwrap_or((&0, &[]));
        if byte != wanted {
            // Not a mark after all. The byte itself may begin the next one, so it is looked at again.
            sink(Piece::Guest(&self.held));
            self.held.clear();
            return bytes;
        }
        self.held.push(byte);
        if self.held.len() == MARK.len() {
            self.held.clear();
            self.in_line = true;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(portions: &[&[u8]]) -> (Vec<u8>, Vec<HypervisorLine>) {
        let (mut guest, mut lines) = (Vec::new(), Vec::new());
        let mut demux = Demux::default();
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Guest(bytes) => guest.extend_from_slice(bytes),
            Piece::Line(line) => lines.push(line),
        };
        for portion in portions {
            demux.feed(portion, &mut sink);
        }
        demux.finish(&mut sink);
        (guest, lines)
    }

    fn line(level: &str, text: &str) -> HypervisorLine {
        HypervisorLine { level: level.into(), text: text.into() }
    }

    #[test]
    fn lines_may_begin_in_the_middle_of_guest_output() {
        let stream = b"ok 1\nok \x1e[gnomon info] hello\n2\n\x1e[gnomon exit] code=0x10 reason=done\n";
        let expected = (b"ok 1\nok 2\n".to_vec(), vec![line("info", "hello"), line("exit", "code=0x10 reason=done")]);
        assert_eq!(split(&[stream]), expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(&bytes), expected, "byte by byte");
        assert_eq!(expected.1[1].exit_code(), Some(0x10));
        assert_eq!(expected.1[0].exit_code(), None);
    }

    #[test]
    fn a_guest_may_print_the_separator() {
        let stream = b"a\x1eb\x1e\x1e[gnomon warn] w\n\x1e[gno";
        assert_eq!(split(&[stream]), (b"a\x1eb\x1e\x1e[gno".to_vec(), vec![line("warn", "w")]));
    }

    #[test]
    fn an_unfinished_line_comes_out_at_the_end() {
        assert_eq!(split(&[b"x\x1e[gnomon error] cut"]), (b"x".to_vec(), vec![line("error", "cut")]));
    }
}
