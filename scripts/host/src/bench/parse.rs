//! Reads the figures that a benchmark guest prints, in either of two forms: `NAME: PER_OPERATION` (the guest `bench-exits`, one
//! line an operation) and `NAME ITERATIONS TICKS` (nanobench, one line a round). Every other line is something else.

use super::results::Count;

/// Reads one line of a guest: the operation, and the ticks that it took once.
fn line(text: &str) -> Option<(&str, f64)> {
    averaged(text).or_else(|| round(text))
}

/// `CLTS: 312.40`
fn averaged(text: &str) -> Option<(&str, f64)> {
    let (name, value) = text.rsplit_once(": ")?;
    let (whole, part) = value.split_once('.')?;
    let decimal = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || name.starts_with('#') || !decimal(whole) || !decimal(part) {
        return None;
    }
    Some((name, value.parse().ok()?))
}

/// `ptemod 10048 130811`
fn round(text: &str) -> Option<(&str, f64)> {
    let mut words = text.split(' ');
    let (Some(name), Some(iterations), Some(ticks), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(allowed) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return None;
    }
    let (iterations, ticks) = (iterations.parse::<u32>().ok()?, ticks.parse::<u64>().ok()?);
    // Exact below 2^53 ticks, months of instructions.
    (iterations > 0).then(|| (name, ticks as f64 / f64::from(iterations)))
}

/// The operations in the output of a guest, in order, each with the smallest of its rounds: what disturbs a round, such as a
/// timer of the host, only ever adds to it.
pub(super) fn counts(output: &str) -> Vec<Count> {
    let mut counts: Vec<Count> = Vec::new();
    for (operation, instructions) in output.lines().filter_map(|text| line(text.trim_end_matches('\r'))) {
        match counts.iter_mut().find(|count| count.operation == operation) {
            Some(count) => {
                count.rounds += 1;
                count.instructions = count.instructions.min(hundredths(instructions));
            }
            None => counts.push(Count {
                operation: operation.to_owned(),
                instructions: hundredths(instructions),
                rounds: 1,
            }),
        }
    }
    counts
}

/// Two decimals are enough, and keep the file of results readable.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(operation: &str, instructions: f64, rounds: u32) -> Count {
        Count { operation: operation.into(), instructions, rounds }
    }

    #[test]
    fn averages_of_bench_exits() {
        let output = "empty loop: 2.00\nwrite CR3, another and back: 1234.56\n# status 0\n";
        assert_eq!(counts(output), [count("empty loop", 2.0, 1), count("write CR3, another and back", 1234.56, 1)]);
    }

    #[test]
    fn the_smallest_round_of_nanobench_counts() {
        let output = "nanobench magic 0x2badb002\r\npaging on\r\ncr3_1 3 300\r\ncr3_1 3 290\r\ninb 5 15\r\ncr3_1 3 310\r\nEND\r\n";
        assert_eq!(counts(output), [count("cr3_1", 96.67, 3), count("inb", 3.0, 1)]);
    }

    #[test]
    fn other_lines_are_no_figures() {
        for text in [
            "",
            "skip syscall",
            "cpu AuthenticAMD sig 0x00000663 sep 1 hv 1",
            "# remark: 1.00",
            "ok 1 - a: 1.x",
            "CLI: -1.00",
            "CLI: inf",
            "x 0 5",
            "x 5 -5",
            "X 5 5",
            "x 5 5 5",
            "1 2 3",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
