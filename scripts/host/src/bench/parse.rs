//! Reads what a benchmark guest prints, a line a round: `NAME COUNT TICKS CALIBRATION`, or without the calibration. Every other
//! line of a guest is something else. Before a round's line the hypervisor may say which exits were in it: `mark 0x11: cli=1000 |
//! flush-all=3`.

use std::collections::BTreeMap;

use super::results::{Clock, Operation};

/// Passes of the loop that the guest `bench` runs before each round (`CALIBRATION_COUNT` in its harness).
const CALIBRATION_COUNT: f64 = 20_000.0;
/// The operation by which a guest without calibration is calibrated.
const EMPTY: &str = "empty";

/// One round of one operation.
#[derive(Clone, Debug, PartialEq)]
struct Round {
    name: String,
    count: u32,
    ticks: u64,
    calibration: Option<u64>,
    exits: Option<Marks>,
}

/// What happened in a round, by name: exits, then what the shadow MMU counted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Marks {
    exits: BTreeMap<String, u64>,
    mmu: BTreeMap<String, u64>,
}

/// The rounds of a run, taken from the console piece by piece.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pending: Vec<u8>,
    mark: Option<Marks>,
    rounds: Vec<Round>,
    text: String,
}

impl Recorder {
    /// The guest has printed something.
    pub(super) fn guest(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(mut round) = round(&line) {
                round.exits = self.mark.take();
                self.rounds.push(round);
            }
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    /// The hypervisor has.
    pub(super) fn hypervisor(&mut self, line: &str) {
        if let Some(marks) = marks(line) {
            self.mark = Some(marks);
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    /// How many operations there were.
    pub(super) fn operations(&self) -> usize {
        names(&self.rounds).len()
    }

    /// Everything that must be the same in each run: the guest's lines and the marks.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Joins the rounds of another run.
    pub(super) fn merge(&mut self, other: Self) {
        self.rounds.extend(other.rounds);
    }

    /// Each operation of all rounds, in the guest's order.
    pub(super) fn results(&self, clock: Clock) -> Vec<Operation> {
        let empty = calibrated_by_empty(&self.rounds);
        names(&self.rounds)
            .into_iter()
            .map(|name| {
                let rounds: Vec<&Round> = self.rounds.iter().filter(|round| round.name == name).collect();
                match clock {
                    Clock::Count => counted(name, &rounds),
                    Clock::Wall => timed(name, &rounds, empty),
                }
            })
            .collect()
    }
}

fn names(rounds: &[Round]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for round in rounds {
        if !names.contains(&round.name.as_str()) {
            names.push(&round.name);
        }
    }
    names
}

/// The best round: what disturbs one, such as a timer of the host, only ever adds to it.
fn counted(name: &str, rounds: &[&Round]) -> Operation {
    let best = rounds.iter().min_by(|a, b| a.each().total_cmp(&b.each()));
    let per_operation = |counts: &BTreeMap<String, u64>, count: u32| {
        counts.iter().map(|(name, &number)| (name.clone(), rounded(number as f64 / f64::from(count), 1e4))).collect()
    };
    let marks = |part: fn(&Marks) -> &BTreeMap<String, u64>| {
        best.and_then(|round| round.exits.as_ref().map(|marks| per_operation(part(marks), round.count)))
    };
    Operation {
        name: name.to_owned(),
        count: best.map_or(0, |round| round.count),
        rounds: rounds.len() as u32,
        cost: best.map_or(0.0, |round| rounded(round.each(), 100.0)),
        spread: None,
        exits: marks(|marks| &marks.exits),
        mmu: marks(|marks| &marks.mmu),
    }
}

/// The median of all rounds in passes of an empty loop, and the quartiles.
fn timed(name: &str, rounds: &[&Round], empty: Option<f64>) -> Operation {
    let pass = |round: &Round| round.calibration.map(|ticks| ticks as f64 / CALIBRATION_COUNT).or(empty).unwrap_or(1.0);
    let mut ratios: Vec<f64> = rounds.iter().map(|round| round.each() / pass(round)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = ((ratios.len().max(1) - 1) as f64 * part).round() as usize;
        rounded(ratios.get(index).copied().unwrap_or(0.0), 100.0)
    };
    Operation {
        name: name.to_owned(),
        count: rounds.first().map_or(0, |round| round.count),
        rounds: rounds.len() as u32,
        cost: at(0.5),
        spread: Some((at(0.25), at(0.75))),
        exits: None,
        mmu: None,
    }
}

/// Ticks of a pass of an empty loop, where the guest has that as an operation.
fn calibrated_by_empty(rounds: &[Round]) -> Option<f64> {
    let empty = rounds.iter().filter(|round| round.name == EMPTY).map(Round::each);
    empty.min_by(f64::total_cmp).filter(|ticks| *ticks > 0.0)
}

impl Round {
    /// Ticks of one operation. Exact below 2^53 ticks, months of instructions.
    fn each(&self) -> f64 {
        self.ticks as f64 / f64::from(self.count)
    }
}

/// `ptemod 1024 130811 40003`
fn round(text: &str) -> Option<Round> {
    let words: Vec<&str> = text.split(' ').collect();
    let (name, count, ticks, calibration) = match words[..] {
        [name, count, ticks] => (name, count, ticks, None),
        [name, count, ticks, calibration] => (name, count, ticks, Some(calibration.parse().ok()?)),
        _ => return None,
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(allowed) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return None;
    }
    let (count, ticks) = (count.parse().ok()?, ticks.parse().ok()?);
    (count > 0).then(|| Round { name: name.to_owned(), count, ticks, calibration, exits: None })
}

/// `mark 0x11: cli=1000 | flush-all=3`
fn marks(text: &str) -> Option<Marks> {
    let (_, counts) = text.strip_prefix("mark 0x")?.split_once(':')?;
    let (exits, mmu) = counts.split_once('|')?;
    let read = |part: &str| {
        let pairs = part.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
    };
    Some(Marks { exits: read(exits), mmu: read(mmu) })
}

/// Few decimals are enough, and keep the file of results readable.
fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(guest: &str) -> Recorder {
        let mut recorder = Recorder::default();
        recorder.guest(guest.as_bytes());
        recorder
    }

    #[test]
    fn the_smallest_round_counts() {
        let recorder = recorded("nanobench magic\r\ncr3_1 3 300\r\ncr3_1 3 290\r\ninb 5 15\r\ncr3_1 3 310\r\nEND\r\n");
        let results = recorder.results(Clock::Count);
        let short: Vec<_> = results.iter().map(|op| (op.name.as_str(), op.cost, op.rounds)).collect();
        assert_eq!(short, [("cr3_1", 96.67, 3), ("inb", 3.0, 1)]);
    }

    #[test]
    fn marks_belong_to_the_next_round() {
        let mut recorder = Recorder::default();
        recorder.hypervisor("guest bench: starts");
        recorder.hypervisor("mark 0x11: cli=10 io=5 | flush-all=20");
        recorder.guest(b"cli 10 40");
        recorder.guest(b"00 40000\nsti 10 3000 40000\n");
        let results = recorder.results(Clock::Count);
        assert_eq!(results[0].all_exits(), Some(1.5));
        assert_eq!(results[0].mmu.as_ref().and_then(|mmu| mmu.get("flush-all")), Some(&2.0));
        assert_eq!(results[1].all_exits(), None);
        assert!(recorder.text().starts_with("mark 0x11"));
    }

    #[test]
    fn times_are_ratios_with_quartiles() {
        let recorder = recorded("x 10 100 20000\nx 10 120 20000\nx 10 140 20000\nx 10 800 40000\nx 10 2000 20000\n");
        let results = recorder.results(Clock::Wall);
        assert_eq!((results[0].cost, results[0].spread), (14.0, Some((12.0, 40.0))));
        let recorder = recorded("empty 10 20\nx 10 100\n");
        assert_eq!(recorder.results(Clock::Wall)[1].cost, 5.0, "calibrated by the empty loop");
    }

    #[test]
    fn other_lines_are_no_figures() {
        for text in
            ["", "skip syscall", "cpu AuthenticAMD sig 0x663 sep 1", "x 0 5", "x 5 -5", "X 5 5", "x 5 5 5 5", "1 2 3"]
        {
            assert_eq!(round(text), None, "{text}");
        }
    }
}
