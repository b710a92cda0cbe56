//! Judges what guests print.

use anyhow::{bail, ensure};

/// Checks TAP: a plan that matches, every line `ok`, at least one of them.
///
/// # Errors
/// The first thing that is wrong.
pub fn tap(output: &[u8]) -> anyhow::Result<usize> {
    let text = String::from_utf8_lossy(output);
    let mut plan = None;
    let mut count = 0;
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("not ok") {
            bail!("the guest says: {line}");
        } else if let Some(rest) = line.strip_prefix("ok ") {
            count += 1;
            let number: usize = rest.split(' ').next().unwrap_or_default().parse().unwrap_or(0);
            ensure!(number == count, "expected `ok {count}`, the guest says: {line}");
        } else if let Some(rest) = line.strip_prefix("1..") {
            ensure!(plan.replace(rest.trim().to_owned()).is_none(), "a second plan: {line}");
        }
    }
    let Some(plan) = plan else { bail!("no plan (`1..N`) after {count} results") };
    ensure!(count > 0 && plan == count.to_string(), "the plan says {plan}, but there are {count} results");
    Ok(count)
}

/// Checks that two outputs are the same, byte by byte, and shows the first line that is not.
///
/// # Errors
/// If they differ.
pub fn same(bare: &[u8], gnomon: &[u8]) -> anyhow::Result<()> {
    if bare == gnomon {
        return Ok(());
    }
    let lines = |bytes: &[u8]| bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (bare, gnomon) = (lines(bare), lines(gnomon));
    let common = bare.iter().zip(&gnomon).take_while(|(a, b)| a == b).count();
    let show = |lines: &[Vec<u8>]| {
        lines.get(common).map_or_else(|| "(nothing more)".to_owned(), |line| line.escape_ascii().to_string())
    };
    bail!("line {} differs\n  bare:   {}\n  gnomon: {}", common + 1, show(&bare), show(&gnomon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_is_judged() {
        assert_eq!(tap(b"1..2\nok 1 - a\n# note\nok 2 - b\n").unwrap(), 2);
        assert_eq!(tap(b"ok 1 - a\n1..1\n").unwrap(), 1, "the plan may come last");
        for wrong in [
            &b""[..],
            b"1..0\n",
            b"ok 1\n",
            b"1..2\nok 1\n",
            b"1..1\nnot ok 1\n",
            b"1..2\nok 1\nok 3\n",
            b"1..1\n1..1\nok 1\n",
        ] {
            assert!(tap(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn differences_are_shown() {
        assert!(same(b"a\nb\n", b"a\nb\n").is_ok());
        let message = same(b"a\nb\nc\n", b"a\nx\nc\n").unwrap_err().to_string();
        assert!(message.contains("line 2 differs\n  bare:   b\\n\n  gnomon: x\\n"), "{message}");
        assert!(same(b"a\n", b"a").is_err());
        assert!(same(b"a\nb\n", b"a\n").unwrap_err().to_string().contains("(nothing more)"));
    }
}
