//! `gnomon bench linux`: Debian's kernels, bare and under Gnomon, from the start to the shell and through 500 processes.
//!
//! The shell itself says when: a file of its own replaces `/etc/profile`. Instructions are the guest's clock under `-icount`; for times,
//! what the emulator has used of the host's CPUs is read at the same moments, which a busy host changes little.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::results::{Results, Source, Tools};
use super::table::Table;
use super::{built_folder, own_folder, provenance, write, write_reports};
use crate::build;
use crate::catalog;
use crate::cli::{MachineArgs, MachineKind};
use crate::console::Piece;
use crate::guest::Guest;
use crate::image::{Payload, Protocol};
use crate::machine::{Machine, RunFolder};
use crate::progress;
use crate::run;
use crate::status::{Failed, Status};

const FILE: &str = "linux.json";
const GUESTS: [&str; 2] = ["debian-686", "debian-686-pae"];
/// What a guest has that says nothing; its times are taken, too.
const DEFAULT: &str = "unsync,prefetch=16,flood=3";
/// The default without patches of hot sites: what they save is the difference. The run is deterministic under `-icount`, so it is
/// exact but for what a timer's tick finds at another place.
const UNPATCHED: &str = "patches=off";
/// What the default is made of, and what else there is.
const POLICIES: [&str; 6] =
    [DEFAULT, UNPATCHED, "write-protect,prefetch=16,flood=3", "write-protect", "unsync", "vtlb,prefetch=16"];
/// How many of these are measured quickly.
const QUICK: usize = 2;
const PROCESSES: u32 = 500;
/// Reasons of exits that are shown.
const MOST_REASONS: usize = 12;
/// Longest time of a run, in seconds.
const LIMIT: f64 = 900.0;
/// The script that the shell runs first.
const PROFILE: &str = "\
read up rest < /proc/uptime; echo \"mark shell $up\"
i=0; while [ $i -lt PROCESSES ]; do /bin/true; i=$((i+1)); done
read up rest < /proc/uptime; echo \"mark loop $up\"
/bin/poweroff -f
";

/// Arguments of `gnomon bench linux`.
#[derive(Debug, Args)]
pub(super) struct LinuxArgs {
    /// The guests [default: both of Debian's]
    #[arg(long, value_delimiter = ',')]
    guest: Vec<String>,
    /// Only the default, with and without patches of hot sites, and bare
    #[arg(long)]
    quick: bool,
    /// Write linux.json and RESULTS.md into the repository's bench/ as well
    #[arg(long)]
    update: bool,
}

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    command: String,
    source: Source,
    tools: Tools,
    runs: Vec<Run>,
}

/// One boot.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    guest: String,
    /// None: bare.
    policy: Option<String>,
    /// Whether instructions were counted; else times were taken.
    counted: bool,
    /// Up to the shell.
    boot: Cost,
    /// The processes.
    processes: Cost,
    /// Exits of the whole run by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    exits: BTreeMap<String, u64>,
}

/// Seconds. Of the guest's clock they are thousand millions of instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cost {
    guest: f64,
    host: f64,
    cpu: f64,
}

impl Cost {
    fn since(self, before: Self) -> Self {
        let round = |seconds: f64| (seconds * 100.0).round() / 100.0;
        Self {
            guest: round(self.guest - before.guest),
            host: round(self.host - before.host),
            cpu: round(self.cpu - before.cpu),
        }
    }
}

/// Measures and prints the section.
pub(super) fn run(args: &LinuxArgs) -> anyhow::Result<Status> {
    let guests: Vec<&str> =
        if args.guest.is_empty() { GUESTS.to_vec() } else { args.guest.iter().map(String::as_str).collect() };
    let policies = if args.quick { &POLICIES[..QUICK] } else { &POLICIES[..] };
    let mut runs = Vec::new();
    for &guest in &guests {
        for counted in [false, true] {
            let policies = if counted { policies } else { &policies[..1] };
            for policy in std::iter::once(None).chain(policies.iter().copied().map(Some)) {
                runs.push(measure(guest, policy, counted)?);
            }
        }
    }
    let mut command = String::from("scripts/gnomon bench linux");
    command.push_str(if args.quick { " --quick" } else { "" });
    if !args.guest.is_empty() {
        let _ = write!(command, " --guest {}", args.guest.join(","));
    }
    command.push_str(if args.update { " --update" } else { "" });
    let measured = Measured { command, source: provenance::source(), tools: provenance::tools(), runs };
    print!("{}", measured.section());
    for folder in std::iter::once(built_folder()).chain(args.update.then(own_folder)) {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&folder.join(FILE), &(serde_json::to_string_pretty(&measured)? + "\n"))?;
    }
    if args.update {
        write_reports(&Results::load(&own_folder())?, &own_folder())?;
    }
    Ok(Status::Ok)
}

/// The section of RESULTS.md, from the results in a folder; empty if there are none.
pub(super) fn section(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    serde_json::from_str::<Measured>(&text).map(|measured| measured.section()).unwrap_or_default()
}

/// What a guest is described with.
fn word(way: &str) -> String {
    if way == UNPATCHED { way.into() } else { format!("shadow={way}") }
}

fn measure(name: &str, policy: Option<&str>, counted: bool) -> anyhow::Result<Run> {
    progress::note(&format!("{name}, {}{}", policy.unwrap_or("bare"), if counted { "" } else { ", timed" }));
    let folder = RunFolder::new()?;
    let script = folder.path().join("profile.cpio");
    let text = PROFILE.replace("PROCESSES", &PROCESSES.to_string());
    std::fs::write(&script, catalog::archive_of("etc/profile", text.as_bytes())?)?;
    let mut guest = Guest::of(name, catalog::find(name)?);
    guest.modules.push((script, String::new()));
    guest.words.extend(policy.map(word));
    let guests = std::slice::from_ref(&guest);
    let bare = policy.is_none();
    let payload = if bare {
        Payload::bare(&guest)?
    } else {
        Payload::gnomon(build::kernel()?, run::kernel_command_line("info", false, &[]), guests)
    };
    let (protocol, memory) =
        if bare { (Protocol::Linux, guest.memory) } else { (Protocol::Gnomon, run::host_memory(guests)) };
    let arguments = MachineArgs {
        machine: MachineKind::Qemu,
        boot: None,
        host_memory: None,
        cpu: None,
        ips: None,
        icount: counted,
        timeout: Some(LIMIT),
    };
    let machine = Machine::new(&arguments, protocol, memory)?;
    let mut marks = Marks { start: Instant::now(), line: Vec::new(), found: Vec::new(), exits: BTreeMap::new() };
    let outcome = run::execute(&machine, &payload, bare, &folder, &mut |piece| marks.see(piece))?;
    let [shell, end] = marks.found[..] else {
        return Err(Failed::with(Status::Guest, format!("{name} has not come to its end: {:?}", outcome.status)));
    };
    Ok(Run {
        guest: name.into(),
        policy: policy.map(str::to_owned),
        counted,
        boot: shell.since(Cost::default()),
        processes: end.since(shell),
        exits: marks.exits,
    })
}

/// What a run has said so far.
struct Marks {
    start: Instant,
    line: Vec<u8>,
    found: Vec<Cost>,
    exits: BTreeMap<String, u64>,
}

impl Marks {
    fn see(&mut self, piece: Piece<'_>) -> io::Result<()> {
        match piece {
            Piece::Guest(bytes) => {
                for &byte in bytes {
                    if byte == b'\n' {
                        let line = std::mem::take(&mut self.line);
                        self.end_line(&String::from_utf8_lossy(&line));
                    } else {
                        self.line.push(byte);
                    }
                }
            }
            Piece::Line(line) => {
                // `  pt-write    25383`; devices and the shadow MMU have a word more.
                let words: Vec<&str> = line.text.split_ascii_whitespace().collect();
                if line.text.starts_with(' ')
                    && let [reason, count] = words[..]
                    && let Ok(count) = count.parse()
                {
                    self.exits.insert(reason.into(), count);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &str) {
        let mark = line.trim_end().rsplit_once("mark ").and_then(|(_, mark)| mark.split_once(' '));
        if let Some(guest) = mark.and_then(|(_, uptime)| uptime.parse().ok()) {
            self.found.push(Cost { guest, host: self.start.elapsed().as_secs_f64(), cpu: children_cpu() });
        }
    }
}

/// Seconds that this process' children, all their threads, have used of the host's CPUs.
fn children_cpu() -> f64 {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = |process: &str| std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children: String = tasks("self").map(|task| read(task.path().join("children")) + " ").collect();
    let of_task = |task: std::fs::DirEntry| -> Option<u64> {
        read(task.path().join("schedstat")).split_ascii_whitespace().next()?.parse().ok()
    };
    let nanos: u64 = children.split_ascii_whitespace().flat_map(|child| tasks(child).filter_map(of_task)).sum();
    nanos as f64 / 1e9
}

impl Measured {
    fn section(&self) -> String {
        let mut text = format!(
            "\n## Debian's kernels\n\nFrom the start to the shell's first command, and {PROCESSES} times fork, exec and exit in that shell \
             (`/bin/true` of busybox). `{}` makes these tables; commit {}{}, {}, {}.\n",
            self.command,
            self.source.commit,
            if self.source.changed { " with changes" } else { "" },
            self.tools.qemu,
            self.tools.host
        );
        let mut names: Vec<&str> = self.runs.iter().map(|run| run.guest.as_str()).collect();
        names.dedup();
        for name in names {
            let _ = write!(text, "\n### `{name}`\n\n{}", self.costs(name));
            let _ = write!(
                text,
                "\nExits of the whole run, boot to power off, the most frequent reasons:\n\n{}",
                self.exits(name)
            );
        }
        text
    }

    fn of<'a>(&'a self, name: &'a str, counted: bool) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.guest == name && run.counted == counted)
    }

    fn costs(&self, name: &str) -> String {
        let mut table = Table::new(&["", "boot", "ratio", "processes", "ratio"]);
        for (counted, unit) in [(true, "10^9 instructions"), (false, "seconds of CPU"), (false, "seconds")] {
            let value = |cost: Cost| match unit {
                "seconds" => cost.host,
                "seconds of CPU" => cost.cpu,
                _ => cost.guest,
            };
            let Some(bare) = self.of(name, counted).find(|run| run.policy.is_none()) else { continue };
            for run in self.of(name, counted) {
                let ratio = |part: Cost, bare: Cost| format!("{:.1}", value(part) / value(bare));
                let way = run.policy.as_deref().unwrap_or("bare");
                table.push(vec![
                    format!("{way}, {unit}"),
                    format!("{:.2}", value(run.boot)),
                    ratio(run.boot, bare.boot),
                    format!("{:.2}", value(run.processes)),
                    ratio(run.processes, bare.processes),
                ]);
            }
        }
        table.markdown()
    }

    fn exits(&self, name: &str) -> String {
        let runs: Vec<&Run> = self.of(name, true).filter(|run| run.policy.is_some()).collect();
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, count) in runs.iter().flat_map(|run| &run.exits) {
            let most = reasons.entry(reason).or_default();
            *most = (*most).max(*count);
        }
        let mut reasons: Vec<(&str, u64)> = reasons.into_iter().collect();
        reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let header: Vec<&str> =
            std::iter::once("").chain(runs.iter().filter_map(|run| run.policy.as_deref())).collect();
        let mut table = Table::new(&header);
        for (reason, _) in reasons.into_iter().take(MOST_REASONS) {
            let counts = runs.iter().map(|run| run.exits.get(reason).copied().unwrap_or(0).to_string());
            table.push(std::iter::once(reason.to_owned()).chain(counts).collect());
        }
        table.markdown() + &self.saved(name)
    }

    /// What patches of hot sites have saved, in words; empty if it was not measured.
    fn saved(&self, name: &str) -> String {
        let total = |way: &str| {
            let run = self.of(name, true).find(|run| run.policy.as_deref() == Some(way))?;
            Some(run.exits.values().sum::<u64>())
        };
        let (Some(with), Some(without)) = (total(DEFAULT), total(UNPATCHED)) else { return String::new() };
        format!("\nPatches of hot sites: {with} exits instead of {without}.\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::HypervisorLine;

    #[test]
    fn marks_and_exits_are_found() {
        let mut marks = Marks { start: Instant::now(), line: Vec::new(), found: Vec::new(), exits: BTreeMap::new() };
        marks.see(Piece::Guest(b"noise\r\n\x1b[6nmark shell 5.61\r\nma")).unwrap();
        marks.see(Piece::Guest(b"rk loop 6.79\r\n")).unwrap();
        for text in ["  pt-write             25383", "  mmu hidden-faults    7", "guest x: 3 exits"] {
            marks.see(Piece::Line(HypervisorLine { level: "info".into(), text: text.into() })).unwrap();
        }
        let [shell, end] = marks.found[..] else { panic!("{:?}", marks.found) };
        assert_eq!((shell.guest, end.since(shell).guest), (5.61, 1.18));
        assert_eq!(marks.exits, BTreeMap::from([("pt-write".to_owned(), 25383)]));
    }

    #[test]
    fn patches_are_judged_by_all_exits() {
        let run = |way: &str, exits: &[(&str, u64)]| Run {
            guest: "g".into(),
            policy: Some(way.into()),
            counted: true,
            boot: Cost::default(),
            processes: Cost::default(),
            exits: exits.iter().map(|&(reason, count)| (reason.to_owned(), count)).collect(),
        };
        let runs = vec![run(UNPATCHED, &[("io", 4), ("cli", 90)]), run(DEFAULT, &[("io", 5), ("cli", 1)])];
        let (source, tools) = (provenance::source(), provenance::tools());
        let mut measured = Measured { command: String::new(), source, tools, runs };
        assert_eq!(measured.saved("g"), "\nPatches of hot sites: 6 exits instead of 94.\n");
        measured.runs.pop();
        assert_eq!(measured.saved("g"), "");
        assert_eq!((word(UNPATCHED), word("vtlb")), ("patches=off".into(), "shadow=vtlb".into()));
    }

    #[test]
    fn the_default_policy_is_the_recommended_one() {
        let text = include_str!("../../../../shadow-mmu/src/policy.rs");
        assert!(text.contains(&format!("`{DEFAULT}`")), "Policy::RECOMMENDED says {DEFAULT}");
    }
}
