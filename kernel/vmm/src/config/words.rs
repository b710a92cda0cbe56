//! Splitting a command line into `key=value` words, and reading values.

/// One word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The whole word.
    pub(super) text: &'a str,
    /// The part before the first `=`, or the whole word.
    pub(super) key: &'a str,
    /// The part after the first `=`.
    pub(super) value: Option<&'a str>,
}

impl<'a> Word<'a> {
    fn new(text: &'a str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { text, key, value: Some(value) },
            None => Self { text, key: text, value: None },
        }
    }
}

/// A command line, split at its first word `--`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The path a boot loader put in front: the first word, if it has no `=`.
    pub(super) path: Option<&'a str>,
    options: &'a str,
    /// What follows `--`, without the blanks around it.
    pub(super) rest: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let (options, rest) = split_at_dashes(line);
        let first = options.split_ascii_whitespace().next().filter(|word| !word.contains('='));
        let options = first.and_then(|path| options.trim_ascii_start().strip_prefix(path)).unwrap_or(options);
        Self { path: first, options, rest: rest.trim_ascii() }
    }

    /// The words before `--`, without the path.
    pub(super) fn words(self) -> impl Iterator<Item = Word<'a>> {
        self.options.split_ascii_whitespace().map(Word::new)
    }
}

/// Splits `line` at the first `--` that stands alone between blanks.
fn split_at_dashes(line: &str) -> (&str, &str) {
    let blank = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_whitespace());
    for (at, dashes) in line.match_indices("--") {
        let before = line.get(..at).unwrap_or("");
        let after = line.get(at.saturating_add(dashes.len())..).unwrap_or("");
        if blank(before.bytes().next_back()) && blank(after.bytes().next()) {
            return (before, after);
        }
    }
    (line, "")
}

/// Reads a number: decimal, or hexadecimal with `0x`.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let sign = digits.starts_with(['+', '-']);
    if sign { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// Reads a size in bytes: a number with an optional suffix K, M or G (powers of 1024, either case).
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len().saturating_sub(1))?, 10),
        b'm' | b'M' => (text.get(..text.len().saturating_sub(1))?, 20),
        b'g' | b'G' => (text.get(..text.len().saturating_sub(1))?, 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}
