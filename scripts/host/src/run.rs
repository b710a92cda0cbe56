//! `gnomon run`, and what every other command that boots something uses.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

use crate::build;
use crate::catalog;
use crate::cli::{MachineKind, RunArgs};
use crate::console::{Demux, HypervisorLine, Piece};
use crate::disk;
use crate::guest::Guest;
use crate::image::Payload;
use crate::machine::{Ending, Input, Machine, RunFolder};
use crate::profile::{self, Profile};
use crate::progress;
use crate::status::{Failed, Status};
use crate::symbols::Symbols;
use crate::terminal::Terminal;
use crate::trace::{self, Format, Names};

/// Memory of the emulated machine when nothing else is said, in bytes.
const HOST_MEMORY: u64 = 256 << 20;
/// What Gnomon wants for itself beside its guests, in bytes.
const HOST_EXTRA: u64 = 128 << 20;

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it means.
    pub status: Status,
    /// How the machine ended.
    pub ending: Ending,
    /// The hypervisor's last line, `code=... reason=...`, if it came.
    pub last_line: Option<HypervisorLine>,
}

/// Memory for a machine with these guests, in bytes: they, their images, and what Gnomon wants.
#[must_use]
pub fn host_memory(guests: &[Guest]) -> u64 {
    let memory: u64 = guests.iter().map(|guest| guest.memory).sum();
    let files = guests.iter().flat_map(Guest::boot_modules).filter_map(|module| fs::metadata(module.file).ok());
    let files: u64 = files.map(|file| file.len()).sum();
    HOST_MEMORY.max(memory.saturating_add(files).saturating_add(HOST_EXTRA))
}

/// Boots `payload` and hands on the console, piece by piece. `bare` says that there is no hypervisor in it, so that the end
/// is the guest's own. Nobody types.
///
/// # Errors
/// If the machine cannot be started, or `sink` fails.
pub fn execute(
    machine: &Machine,
    payload: &Payload,
    bare: bool,
    folder: &RunFolder,
    sink: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> anyhow::Result<Outcome> {
    converse(machine, payload, bare, folder, Input::none(), sink)
}

/// As [`execute`], with `input` typed at the console.
///
/// # Errors
/// As for [`execute`].
pub fn converse(
    machine: &Machine,
    payload: &Payload,
    bare: bool,
    folder: &RunFolder,
    input: Input,
    sink: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut demux = Demux::default();
    let mut last_line = None;
    let mut error = None;
    let mut hand_on = |piece: Piece<'_>| {
        if let Piece::Line(line) = &piece
            && line.level == "exit"
        {
            last_line = Some(line.clone());
        }
        if let Err(failure) = sink(piece) {
            error.get_or_insert(failure);
        }
        error.take().map_or(Ok(()), Err)
    };
    let mut result = Ok(());
    let mut feed = |bytes: &[u8]| {
        if bare {
            return hand_on(Piece::Guest(bytes));
        }
        demux.feed(bytes, &mut |piece| {
            if result.is_ok() {
                result = hand_on(piece);
            }
        });
        std::mem::replace(&mut result, Ok(()))
    };
    let ending = machine.run(payload, folder, input, &mut feed)?;
    demux.finish(&mut |piece| drop(hand_on(piece)));
    let status = status(bare, &ending, last_line.as_ref());
    Ok(Outcome { status, ending, last_line })
}

fn status(bare: bool, ending: &Ending, last_line: Option<&HypervisorLine>) -> Status {
    let code = match ending {
        Ending::TimedOut => return Status::Timeout,
        Ending::Interrupted => return Status::Interrupted,
        Ending::Left => return Status::Ok,
        Ending::Emulator(_) => return Status::Tool,
        Ending::Reset => return if bare { Status::Guest } else { Status::Host },
        Ending::Shutdown if bare => return Status::Ok,
        Ending::DebugExit(value) if bare => return if *value == 0 { Status::Ok } else { Status::Guest },
        Ending::DebugExit(value) => Some(*value),
        // Bochs hands no value on.
        Ending::Shutdown => last_line.and_then(HypervisorLine::exit_code),
    };
    match code {
        Some(0x10) => Status::Ok,
        Some(0x11) => Status::Guest,
        Some(0x12) => Status::Usage,
        _ => Status::Host,
    }
}

/// The hypervisor's command line.
#[must_use]
pub fn kernel_command_line(log: &str, trace: bool, more: &[String]) -> String {
    let mut words = vec![format!("log={log}")];
    if trace {
        words.push("trace=on".into());
    }
    words.extend_from_slice(more);
    words.join(" ")
}

/// Prints a piece of the console: the guest's bytes to stdout, the hypervisor's lines to stderr.
///
/// # Errors
/// Those of stdout.
pub fn print(piece: &Piece<'_>, colour: bool) -> io::Result<()> {
    match piece {
        Piece::Guest(bytes) => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Piece::Line(line) => {
            let (on, off) = match (colour, line.level.as_str()) {
                (false, _) => ("", ""),
                (true, "error") => ("\x1b[31m", "\x1b[0m"),
                (true, "warn") => ("\x1b[33m", "\x1b[0m"),
                (true, _) => ("\x1b[2m", "\x1b[0m"),
            };
            let _ = writeln!(io::stderr(), "{on}[gnomon {}] {}{off}", line.level, line.text);
            Ok(())
        }
    }
}

/// `gnomon run`.
///
/// # Errors
/// If something is wrong with the arguments, the build or the machine.
pub fn run(args: &RunArgs) -> anyhow::Result<Status> {
    let mut find = catalog::find;
    let guests = if args.guest.is_empty() {
        vec![Guest::from_args(args, &mut find)?]
    } else {
        args.guest.iter().map(|text| Guest::parse(text, &mut find)).collect::<anyhow::Result<_>>()?
    };
    let (payload, memory) = if args.bare {
        (Payload::bare(&guests[0])?, guests[0].memory)
    } else {
        if args.profile.is_some() && args.machine.machine == MachineKind::Bochs {
            return Err(Failed::usage("--profile is for QEMU"));
        }
        let mut more = args.set.clone();
        more.extend(args.backend.map(|backend| format!("backend={}", backend.word())));
        let words = kernel_command_line(&args.log, args.trace.is_some(), &more);
        (Payload::gnomon(build::kernel()?, words, &guests), host_memory(&guests))
    };
    let mut machine = Machine::new(&args.machine, payload.protocol, memory)?;
    let saves_disks = !args.bare && guests.iter().flat_map(|guest| &guest.disks).any(|disk| disk.keep);
    machine.trace = args.trace.is_some() || saves_disks;
    machine.profile = args.profile.is_some().then(|| Profile::of(&payload.kernel)).transpose()?;
    let folder = RunFolder::new()?;
    let colour = progress::stderr_colour();
    let (mut terminal, input) = Terminal::connect(guests[0].ready.as_deref())?;
    let outcome = converse(&machine, &payload, args.bare, &folder, input, &mut |piece| {
        if let Piece::Guest(bytes) = &piece {
            terminal.guest_printed(bytes);
        }
        print(&piece, colour)
    });
    drop(terminal);
    let outcome = outcome?;
    explain(&outcome, args.bare, &machine);
    if saves_disks {
        disk::save(&folder.com2(), &guests)?;
    }
    if let Some(file) = &args.profile {
        profile::save(&folder, &payload.kernel, file)?;
    }
    if let Some(file) = &args.trace {
        let format = args.trace_format.unwrap_or_else(|| Format::of_file(file));
        save_trace(&folder.com2(), file, format, &mut names(&guests))?;
    }
    let debug_exit = debug_exit(&outcome, args.bare).filter(|_| args.qemu_exit);
    Ok(debug_exit.map_or(outcome.status, Status::of_debug_exit))
}

/// What the first guest wrote to its debug exit port.
fn debug_exit(outcome: &Outcome, bare: bool) -> Option<u32> {
    match outcome.ending {
        Ending::DebugExit(value) if bare => Some(value),
        _ => outcome.last_line.as_ref().and_then(HypervisorLine::guest_status),
    }
}

/// Says on stderr why a run did not end well, where the console has not said it.
pub fn explain(outcome: &Outcome, bare: bool, machine: &Machine) {
    match &outcome.ending {
        Ending::Emulator(why) => progress::error(why),
        Ending::TimedOut => {
            progress::error(&format!("stopped after {} s", machine.timeout.unwrap_or_default().as_secs_f64()));
        }
        Ending::Reset if bare => progress::error("the guest reset the machine (perhaps by a triple fault)"),
        Ending::DebugExit(value) if bare && *value != 0 => {
            progress::error(&format!("the guest ended with status {value}"));
        }
        _ if outcome.status == Status::Host && outcome.last_line.is_none() => {
            progress::error("the hypervisor ended without a last line");
        }
        _ => {}
    }
}

/// The symbols of these guests.
#[must_use]
pub fn names(guests: &[Guest]) -> Names {
    let mut names = Names::default();
    for guest in guests {
        let symbols = fs::read(&guest.kernel).ok().and_then(|elf| Symbols::from_elf(&elf).ok());
        if let Some(symbols) = symbols {
            names.add(&guest.name, symbols);
        }
    }
    names
}

/// Writes the trace that a run left in `raw` to `file`; `-` is stderr.
///
/// # Errors
/// If it is damaged, or a file cannot be read or written.
pub fn save_trace(raw: &Path, file: &Path, format: Format, names: &mut Names) -> anyhow::Result<()> {
    let bytes = fs::read(raw).context("the machine has sent no trace")?;
    let mut out: Box<dyn io::Write> = if file == Path::new("-") {
        Box::new(io::stderr().lock())
    } else {
        let created = fs::File::create(file).map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
        Box::new(io::BufWriter::new(created))
    };
    if format == Format::Bin {
        out.write_all(&bytes)?;
    } else {
        let trace = trace::read(&bytes)?;
        if trace.incomplete > 0 {
            progress::note(&format!("the trace ends within a record ({} bytes of it are there)", trace.incomplete));
        }
        write_trace(&trace.records, format, names, &mut *out)?;
    }
    out.flush()?;
    Ok(())
}

fn write_trace(
    records: &[gnomon_trace::Record],
    format: Format,
    names: &mut Names,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    match format {
        Format::Json => trace::json(records, names, out),
        Format::Text | Format::Bin => trace::text(records, names, out),
    }
}

/// `gnomon trace`.
///
/// # Errors
/// If the file is no trace.
pub fn decode(args: &crate::cli::TraceArgs) -> anyhow::Result<Status> {
    let bytes = fs::read(&args.file).map_err(|error| Failed::usage(format!("{}: {error}", args.file.display())))?;
    let mut guests = Vec::new();
    for pair in &args.symbols {
        let (name, image) = pair.split_once('=').ok_or_else(|| Failed::usage("--symbols: expected VM=FILE"))?;
        guests.push(Guest::of(name, catalog::find(image)?));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.format == Format::Bin {
        out.write_all(&bytes)?;
    } else {
        let trace = trace::read(&bytes)?;
        write_trace(&trace.records, args.format, &mut names(&guests), &mut out)?;
    }
    out.flush()?;
    Ok(Status::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(code: &str) -> HypervisorLine {
        HypervisorLine { level: "exit".into(), text: format!("code={code} reason=x") }
    }

    #[test]
    fn statuses_of_gnomon() {
        let qemu = |value| status(false, &Ending::DebugExit(value), None);
        assert_eq!(
            [qemu(0x10), qemu(0x11), qemu(0x12), qemu(0x13)],
            [Status::Ok, Status::Guest, Status::Usage, Status::Host]
        );
        assert_eq!(qemu(0), Status::Host, "only the hypervisor's own codes count");
        assert_eq!(status(false, &Ending::Shutdown, Some(&last("0x12"))), Status::Usage);
        assert_eq!(status(false, &Ending::Shutdown, None), Status::Host);
        assert_eq!(status(false, &Ending::Reset, None), Status::Host);
        assert_eq!(status(false, &Ending::TimedOut, Some(&last("0x10"))), Status::Timeout);
    }

    #[test]
    fn statuses_of_bare_guests() {
        assert_eq!(status(true, &Ending::DebugExit(0), None), Status::Ok);
        assert_eq!(status(true, &Ending::DebugExit(0x10), None), Status::Guest);
        assert_eq!(status(true, &Ending::Shutdown, None), Status::Ok);
        assert_eq!(status(true, &Ending::Reset, None), Status::Guest);
    }

    #[test]
    fn statuses_of_debug_exits() {
        let of = |line: HypervisorLine, ending| {
            debug_exit(&Outcome { status: Status::Guest, ending, last_line: Some(line) }, false)
        };
        assert_eq!(of(last("0x11 status=3"), Ending::DebugExit(0x11)), Some(3));
        assert_eq!(of(last("0x11"), Ending::DebugExit(0x11)), None);
        let bare = Outcome { status: Status::Guest, ending: Ending::DebugExit(1), last_line: None };
        assert_eq!(debug_exit(&bare, true), Some(1));
        assert_eq!([0, 1, 0x80].map(Status::of_debug_exit), [1, 3, 1].map(Status::Qemu));
    }

    #[test]
    fn command_line_of_the_kernel() {
        assert_eq!(kernel_command_line("warn", true, &["timeslice=5".into()]), "log=warn trace=on timeslice=5");
        assert_eq!(kernel_command_line("info", false, &[]), "log=info");
    }
}
