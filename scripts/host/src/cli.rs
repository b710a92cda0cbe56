//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shadow_mmu::Policy;

use crate::status::EXIT_CODES;
use crate::trace::Format;

mod choices;

pub use choices::{BackendName, Boot, ConsoleKind, MachineKind, MmuName};

/// Gnomon: a hypervisor for x86 machines without VT-x. This tool builds it, boots it, and shows what it does.
#[derive(Debug, Parser)]
#[command(name = "gnomon", version, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Cli {
    /// Say nothing about the tool's own work
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the demo guest and tell what happened, from malloc to the shadow page-table entry
    #[command(after_help = EXIT_CODES)]
    Demo(DemoArgs),
    /// Run guests under Gnomon (or bare) in QEMU or Bochs
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Decode a trace that `run --trace FILE --trace-format bin` has saved
    #[command(after_help = EXIT_CODES)]
    Trace(TraceArgs),
    /// Run everything that CI runs: format, lints, docs, unit tests, kernel build, end-to-end tests
    #[command(after_help = EXIT_CODES)]
    Test(TestArgs),
    /// Fuzz the shadow MMU beside its model: guests that nobody thought of
    #[command(after_help = EXIT_CODES)]
    Fuzz(crate::check::FuzzArgs),
    /// Count the instructions that a guest kernel's operations cost, bare and under Gnomon
    #[command(after_help = EXIT_CODES)]
    Bench(crate::bench::BenchArgs),
    /// Say what is missing or wrong on this machine
    #[command(after_help = EXIT_CODES)]
    Doctor,
    /// Build the kernel and the guests, and check the kernel's machine code
    #[command(after_help = EXIT_CODES)]
    Build(BuildArgs),
    /// List the guests that come with Gnomon or can be fetched, and fetch them
    #[command(after_help = EXIT_CODES)]
    Guests(GuestsArgs),
}

const RUN_HELP: &str = "\
The guest's console is this terminal: what is typed goes to its COM1, control characters included. Ctrl-A X ends the
machine, Ctrl-A H lists what else there is. Input from a pipe or a file is handed on at the guest's pace and never lost.
With several guests, the first one that still runs gets the input.
Stdout carries the guest's console and nothing else; lines of the hypervisor and of this tool go to stderr.

Kernels: Linux bzImage (32-bit boot protocol), multiboot1, multiboot2, PVH; ELF32, or load addresses in the header.

Examples:
  gnomon run debian-686                       a ready guest: fetched the first time (see gnomon guests)
  gnomon run --kernel bzImage --initrd rd.gz --append 'console=ttyS0' --disk disk.img -m 256M
  gnomon run demo                             a guest that comes with Gnomon
  gnomon run kernel.elf -m 64M -- root=sda    a 32-bit multiboot kernel with arguments
  gnomon run kernel.elf --bare                the same without Gnomon
  gnomon run --machine bochs --timeout 60 kernel.elf
  gnomon run --guest 'name=a mem=16M kernel=a.elf -- x' --guest 'name=b kernel=b.elf module=initrd.img'
  echo 'uname -a; poweroff' | gnomon run debian-686-pae
  gnomon run timer --icount --trace out.json
  gnomon run aliases --policy unsync,reuse=off
  gnomon run demo --backend svm               on AMD-V with nested paging, which QEMU emulates

Exit codes:
  0    every guest ended with status 0
  1    a guest ended with another status, or was stopped with a report
  2    wrong arguments, guest description or image
  3    the hypervisor faulted
  4    the time limit passed
  5    an emulator or tool is missing or failed, or the build failed
  130  interrupted (no emulator is left behind)";

/// Which emulator, and how it is set up.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// The emulator
    #[arg(long, value_enum, default_value_t = MachineKind::Qemu)]
    pub machine: MachineKind,
    /// How the image is booted [default: kernel on QEMU, grub on Bochs]
    #[arg(long, value_enum)]
    pub boot: Option<Boot>,
    /// Memory of the emulated machine [default: enough for the guests]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub host_memory: Option<u64>,
    /// CPU model, in the emulator's own words [default: max on QEMU, tigerlake on Bochs]
    #[arg(long, visible_alias = "model", value_name = "NAME")]
    pub cpu: Option<String>,
    /// Bochs: instructions per second of the machine's time [default: 50000000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1_000_000..=1_000_000_000))]
    pub ips: Option<u32>,
    /// QEMU: one instruction is one nanosecond and one TSC tick, so that runs are reproducible and TSC counts instructions
    #[arg(long)]
    pub icount: bool,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<f64>,
}

/// Arguments of `gnomon run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image of the guest kernel: a file, or the name of a guest that comes with Gnomon
    #[arg(value_name = "KERNEL", conflicts_with = "kernel")]
    pub image: Option<String>,
    /// The same as KERNEL
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<String>,
    /// Memory of the guest (suffixes K, M, G) [default: 128M, as QEMU's; guests that come with Gnomon and ready guests have their own]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Name of the guest [default: the image's name]
    #[arg(long)]
    pub name: Option<String>,
    /// How the guest's page tables are shadowed: `write-protect`, `unsync`, `unsync:N` or `vtlb`, and switches with commas between:
    /// eager=on|off, reuse=on|off, patience=N, prefetch=N, roots=N|all, flood=N, teardown=N, global=on|off, absent=on|off,
    /// huge=on|off, ahead=on|off
    /// (docs/architecture.md) [default: unsync,prefetch=16,flood=3]
    #[arg(long, value_name = "POLICY[,SWITCH=VALUE]...", value_parser = parse_policy)]
    pub policy: Option<String>,
    /// What the guest's console is [default: auto]
    #[arg(long, value_enum)]
    pub console: Option<ConsoleKind>,
    /// An initial RAM disk; several are joined. Replaces the one that a ready guest brings
    #[arg(long, value_name = "FILE")]
    pub initrd: Vec<String>,
    /// An IDE disk, in the first free place: primary master, primary slave, and so on
    #[arg(long, value_name = "FILE")]
    pub disk: Vec<String>,
    /// The primary master
    #[arg(long, value_name = "FILE")]
    pub hda: Option<String>,
    /// The primary slave
    #[arg(long, value_name = "FILE")]
    pub hdb: Option<String>,
    /// The secondary master
    #[arg(long, value_name = "FILE")]
    pub hdc: Option<String>,
    /// The secondary slave
    #[arg(long, value_name = "FILE")]
    pub hdd: Option<String>,
    /// Keep what the guest writes to its disks [default: it is forgotten]
    #[arg(long)]
    pub keep_writes: bool,
    /// A module for the guest, with its arguments
    #[arg(long, value_name = "FILE[ ARGS]")]
    pub module: Vec<String>,
    /// Arguments for the guest kernel, in one string. Replaces those that a ready guest brings
    #[arg(long, value_name = "ARGS")]
    pub append: Option<String>,
    /// More arguments for the guest kernel
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
    /// A guest in Gnomon's own words, several times for several guests: `name=a mem=16M kernel=FILE module=FILE -- ARGS`
    #[arg(long, value_name = "DESCRIPTION", conflicts_with_all = ["image", "kernel", "memory", "name", "policy", "console", "initrd", "disk", "hda", "hdb", "hdc", "hdd", "keep_writes", "module", "append", "arguments"])]
    pub guest: Vec<String>,
    /// Hold piped input back until the guest has printed this (a terminal's is never held back)
    #[arg(long, value_name = "TEXT")]
    pub input_after: Option<String>,
    /// Run the guest without Gnomon on the same emulator
    #[arg(long, conflicts_with_all = ["guest", "policy", "console", "trace", "set"])]
    pub bare: bool,
    /// When the (first) guest ends itself by a write to port 0xF4, end as QEMU's isa-debug-exit does: with twice the value, plus 1
    #[arg(long)]
    pub qemu_exit: bool,
    /// Save a trace of every exit; `-` is stderr
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Format of the trace [default: by the file's extension (.json, .bin), else text]
    #[arg(long, value_enum, requires = "trace")]
    pub trace_format: Option<Format>,
    /// QEMU: count each instruction that is executed, and save how many were which function's; `-` is stderr
    #[arg(long, value_name = "FILE", conflicts_with = "bare")]
    pub profile: Option<PathBuf>,
    /// Who runs the guests: rings and shadow tables alone, VT-x, or AMD-V [default: depriv]
    #[arg(long, value_enum, conflicts_with = "bare")]
    pub backend: Option<BackendName>,
    /// Whose tables the CPU walks [default: nested with --backend vmx or svm]
    #[arg(long, value_enum, conflicts_with_all = ["bare", "guest"])]
    pub mmu: Option<MmuName>,
    /// Log level of the hypervisor: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// Another word for the hypervisor's command line, such as `timeslice=5`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The emulator
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Arguments of `gnomon guests`.
#[derive(Debug, Args)]
pub struct GuestsArgs {
    /// Fetch these ready guests now, so that they can be run without a network later
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub fetch: Vec<String>,
    /// Fetch again what is there already, for newer packages
    #[arg(long, requires = "fetch")]
    pub again: bool,
}

/// Arguments of `gnomon demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Show every record of the story's part of the trace as well
    #[arg(long)]
    pub records: bool,
    /// Save the trace (format by extension: .json, .bin, else text)
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The emulator
    #[arg(long, value_enum, default_value_t = MachineKind::Qemu)]
    pub machine: MachineKind,
    /// Stop after this time
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub timeout: f64,
}

/// Arguments of `gnomon trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The saved trace, as it came over the wire
    pub file: PathBuf,
    /// Format of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Take symbols of a guest from its image: `demo=FILE` (or the name of a guest that comes with Gnomon)
    #[arg(long, value_name = "VM=FILE")]
    pub symbols: Vec<String>,
}

/// Arguments of `gnomon test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Run only these steps
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<crate::check::Step>,
    /// Do not run these steps
    #[arg(long, value_enum, value_delimiter = ',')]
    pub skip: Vec<crate::check::Step>,
    /// Run only the end-to-end tests whose name contains this (and no other step)
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
}

/// Arguments of `gnomon build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Write a bootable ISO image with this guest (a file, or the name of a guest that comes with Gnomon)
    #[arg(long, value_name = "KERNEL", requires = "output")]
    pub iso: Option<String>,
    /// Where the ISO image goes
    #[arg(short, long, value_name = "FILE", requires = "iso")]
    pub output: Option<PathBuf>,
}

/// Reads a time limit.
///
/// # Errors
/// One line that says what was expected.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 && seconds <= 1e6 => Ok(seconds),
        _ => Err("expected a number of seconds above 0, such as 30 or 0.5".into()),
    }
}

/// A policy in its own words, which are handed on as they are.
fn parse_policy(text: &str) -> Result<String, String> {
    text.parse::<Policy>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Reads a size in bytes with an optional suffix K, M or G.
///
/// # Errors
/// One line that says what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a size such as 512K, 32M or 1G, not `{text}`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|&size| size > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("640K"), Ok(640 << 10));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "M", "-1M", "0", "1T", "99999999999G", "1.5M"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn run_takes_arguments_after_dashes() {
        let cli = Cli::try_parse_from(["gnomon", "run", "k.elf", "-m", "16M", "--", "a", "-b"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!((run.image.as_deref(), run.memory), (Some("k.elf"), Some(16 << 20)));
        assert_eq!(run.arguments, ["a", "-b"]);
    }
}
