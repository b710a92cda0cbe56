//! Where the hypervisor's instructions go: QEMU counts each one that it executes, by a plugin (`scripts/counter`), and the counts are
//! summed by function.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, SectionKind};

use crate::machine::RunFolder;
use crate::status::Failed;
use crate::symbols::Symbols;
use crate::{progress, workspace};

/// The plugin's file in a run's folder.
pub(crate) const PLUGIN: &str = "counter.so";
/// What it writes there.
const COUNTS: &str = "counts";
/// Who executes what is not the hypervisor's.
const ELSEWHERE: &str = "(guests, firmware, boot)";

/// What is to be counted.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The plugin.
    pub plugin: PathBuf,
    /// The first address.
    first: u64,
    /// How many there are.
    bytes: u64,
}

impl Profile {
    /// For the code of this kernel. Builds the plugin.
    ///
    /// # Errors
    /// If it cannot be built, or the kernel is no ELF file.
    pub fn of(kernel: &Path) -> anyhow::Result<Self> {
        let elf = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
        let file = object::File::parse(&*elf).context("the kernel is no ELF file")?;
        // The code that switches to long mode lies low, and runs once.
        let high = |address: &u64| address >> 63 != 0;
        let text = || file.sections().filter(|section| section.kind() == SectionKind::Text);
        let first = text().map(|section| section.address()).filter(high).min().unwrap_or(0);
        let end = text().map(|section| section.address() + section.size()).filter(high).max().unwrap_or(first);
        Ok(Self { plugin: build()?, first, bytes: end - first })
    }

    /// The value of QEMU's `-plugin`; the plugin is [`PLUGIN`] in the current folder.
    pub(crate) fn argument(&self) -> String {
        format!("./{PLUGIN},first={},bytes={},out={COUNTS}", self.first, self.bytes)
    }
}

fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "-p", "gnomon-counter"]);
    let status = cargo.status().map_err(|error| Failed::tool(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Failed::tool("the plugin for QEMU does not build (cargo's messages are above)"));
    }
    Ok(workspace::host_target().join("debug/libgnomon_counter.so"))
}

/// How many times each instruction was executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_address: BTreeMap<u64, u64>,
    elsewhere: u64,
}

impl Counts {
    /// What a run has left in its folder.
    ///
    /// # Errors
    /// If it has left nothing, or something else.
    pub fn read(folder: &RunFolder) -> anyhow::Result<Self> {
        let text = fs::read_to_string(folder.path().join(COUNTS)).context("QEMU has written no counts")?;
        Self::parse(&text).context("QEMU's counts are damaged")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut counts = Self::default();
        for line in text.lines() {
            let (place, count) = line.split_once(' ')?;
            let count = count.parse().ok()?;
            if place == "elsewhere" {
                counts.elsewhere = count;
            } else {
                counts.by_address.insert(u64::from_str_radix(place, 16).ok()?, count);
            }
        }
        Some(counts)
    }

    /// Instructions by function, and what is not the hypervisor's.
    fn by_function(&self, symbols: &Symbols) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::from([(ELSEWHERE.to_owned(), self.elsewhere)]);
        for (&address, count) in &self.by_address {
            let name = symbols.find(address).map_or("(no name)", |symbol| &symbol.name);
            *sums.entry(name.to_owned()).or_default() += count;
        }
        sums
    }
}

/// A line of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The function.
    pub name: String,
    /// Instructions, for each operation if there are some.
    pub instructions: f64,
}

/// What `counts` has more than `less`, by function, divided by `operations`; the most first. Functions of less than `least` instructions
/// are left out.
#[must_use]
pub fn lines(counts: &Counts, less: &Counts, symbols: &Symbols, operations: f64, least: f64) -> Vec<Line> {
    let less = less.by_function(symbols);
    let line = |(name, count): (String, u64)| {
        let less = less.get(&name).copied().unwrap_or(0);
        Line { name, instructions: (count as f64 - less as f64) / operations }
    };
    let mut lines: Vec<Line> = counts.by_function(symbols).into_iter().map(line).collect();
    lines.retain(|line| line.instructions >= least);
    lines.sort_by(|a, b| b.instructions.total_cmp(&a.instructions));
    lines
}

/// The lines as a table.
#[must_use]
pub fn table(lines: &[Line], digits: usize) -> String {
    let all: f64 = lines.iter().map(|line| line.instructions).sum();
    let mut text = format!("{:>14}  {:>6}  function\n", "instructions", "share");
    for Line { name, instructions } in lines {
        let _ = writeln!(text, "{instructions:>14.digits$}  {:>5.1}%  {name}", 100.0 * instructions / all);
    }
    let _ = writeln!(text, "{all:>14.digits$}  100.0%  all of these");
    text
}

/// The symbols of the kernel.
///
/// # Errors
/// If it cannot be read.
pub fn symbols(kernel: &Path) -> anyhow::Result<Symbols> {
    Symbols::from_elf(&fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?)
}

/// Writes what a run has executed by function to `file`; `-` is stderr.
///
/// # Errors
/// If there are no counts, or the file cannot be written.
pub fn save(folder: &RunFolder, kernel: &Path, file: &Path) -> anyhow::Result<()> {
    let counts = Counts::read(folder)?;
    let text = table(&lines(&counts, &Counts::default(), &symbols(kernel)?, 1.0, 1.0), 0);
    if file == Path::new("-") {
        eprint!("{text}");
        return Ok(());
    }
    fs::write(file, text).map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
    progress::note(&format!("wrote {}", file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Counts {
        Counts::parse(text).unwrap()
    }

    #[test]
    fn instructions_are_summed_by_function_and_divided() {
        let list = [(0x10, 0x10, "first"), (0x20, 0x10, "second")];
        let symbols = Symbols::from_list(list.map(|(start, size, name)| (start, size, name.to_owned())));
        let more = counts("elsewhere 30\n10 100\n14 100\n20 12\n40 5\n");
        let less = counts("elsewhere 10\n10 20\n14 20\n20 12\n");
        let lines = lines(&more, &less, &symbols, 10.0, 0.1);
        let found: Vec<(&str, f64)> = lines.iter().map(|line| (line.name.as_str(), line.instructions)).collect();
        assert_eq!(found, [("first", 16.0), (ELSEWHERE, 2.0), ("(no name)", 0.5)]);
        assert!(table(&lines, 1).contains("          16.0   86.5%  first"), "{}", table(&lines, 1));
    }

    #[test]
    fn damaged_counts_are_refused() {
        assert_eq!(Counts::parse("elsewhere 1\n10"), None);
        assert_eq!(Counts::parse("wrong 1\n"), None);
    }
}
