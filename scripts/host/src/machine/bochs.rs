//! Bochs, headless. Its exit status says nothing, so the log does.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Child, Console, Ending, Input, Line, Machine, RunFolder};
use crate::image::{self, Payload};
use crate::status::Failed;

/// The CPU model when none is asked for: the newest, with UMIP and protection keys.
pub const CPU: &str = "tigerlake";
/// BIOS and VGA BIOS.
pub const ROM_FILES: [&str; 2] = ["/usr/share/seabios/bios.bin", "/usr/share/seabios/vgabios-isavga.bin"];
/// Emulated instructions per second of emulated time, if nobody says otherwise. Less leaves Linux too few between two of its 250 ticks a
/// second, each of which costs some ten thousand under Gnomon: with half of it, Linux finds that the TSC runs away from its ticks, and
/// reads the slow ACPI timer for ever.
const IPS: u32 = 50_000_000;
/// For guests that count no ticks: every BIOS delay and every serial byte costs half the real time.
pub const QUICK_IPS: u32 = 25_000_000;

/// What Bochs' ACPI says when the guest switches the machine off.
const ACPI_OFF: &str = "soft power off";
/// How long Bochs may take to connect to the socket that is its COM1.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(
    machine: &Machine,
    payload: &Payload,
    folder: &RunFolder,
    input: Input,
    console: &mut Console<'_>,
) -> anyhow::Result<Ending> {
    image::make(payload, folder.path())?;
    let at = |name: &str| folder.path().join(name);
    // A line that is only written is a file: Bochs asks a socket for input all the time.
    let listener = if input.is_some() { Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?) } else { None };
    let com1 = match &listener {
        Some(listener) => format!("mode=socket-client, dev=localhost:{}", listener.local_addr()?.port()),
        None => "mode=file, dev=com1".to_owned(),
    };
    fs::write(at("bochsrc"), configuration(machine, &com1, &disks(payload, folder.path())?))?;
    // Debian's Bochs has the debugger compiled in and waits for a command.
    fs::write(at("commands"), "c\n")?;
    let mut command = super::command("bochs");
    command.args(["-q", "-f", "bochsrc", "-rc", "commands"]).current_dir(folder.path()).env("TERM", "dumb");
    command.stdout(Stdio::null()).stderr(fs::File::create(at("stderr"))?);
    let mut child = Child::spawn(&mut command).map_err(|error| Failed::tool(format!("cannot start bochs: {error}")))?;
    let line = match listener {
        Some(listener) => connect(&listener, &mut child, folder)?,
        None => Line { to: Box::new(std::io::sink()), drained: None },
    };
    let ended = machine.watch(&mut child, folder, line, input, console)?;
    Ok(match ended {
        Ok(_) => ending(&read(&at("bochs.log")), &read(&at("stderr"))),
        Err(killed) => killed,
    })
}

/// Waits until Bochs is there; what it sends goes to the file that is watched. If it ends first, its log says why.
fn connect(listener: &TcpListener, child: &mut Child, folder: &RunFolder) -> anyhow::Result<Line> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    while child.try_wait()?.is_none() && start.elapsed() < PATIENCE && !crate::interrupt::pending() {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(super::TICK);
            continue;
        };
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let to = Box::new(stream.try_clone()?);
        let mut file = fs::File::create(folder.com1())?;
        let drained = std::thread::spawn(move || drop(std::io::copy(&mut stream, &mut file)));
        return Ok(Line { to, drained: Some(drained) });
    }
    Ok(Line { to: Box::new(std::io::sink()), drained: None })
}

/// The lines of `bochsrc` for the guest's disks. GRUB's image is the second channel's first drive.
fn disks(payload: &Payload, folder: &Path) -> anyhow::Result<String> {
    let mut lines = String::new();
    for disk in &payload.disks {
        let name = format!("d{}", disk.place);
        let place = ["ata0-master", "ata0-slave", "", "ata1-slave"].get(disk.place).filter(|place| !place.is_empty());
        let place = place.ok_or_else(|| Failed::usage("Bochs' secondary master is the drive that it boots from"))?;
        symlink(&disk.file, folder.join(&name))?;
        let mode = if disk.keep { "flat" } else { "volatile" };
        writeln!(lines, "{place}: type=disk, mode={mode}, path={name}")?;
    }
    Ok(lines)
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// `bochsrc`. `term` is the only display without a window that Debian builds.
fn configuration(machine: &Machine, com1: &str, disks: &str) -> String {
    let [bios, vga] = ROM_FILES;
    let cpu = machine.cpu.as_deref().unwrap_or(CPU);
    let ips = machine.ips.unwrap_or(IPS);
    let com2 = if machine.trace { "com2: enabled=1, mode=file, dev=com2\n" } else { "com2: enabled=1, mode=null\n" };
    format!(
        "display_library: term\n\
         megs: {}\n\
         cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0\n\
         romimage: file={bios}\n\
         vgaromimage: file={vga}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n\
         {disks}\
         ata1-master: type=cdrom, path=boot.iso, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, {com1}\n\
         {com2}\
         plugin_ctrl: unmapped=1\n\
         log: bochs.log\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=report\n\
         debug: action=ignore\n",
        machine.memory_mib
    )
}

/// What Bochs' log says about its end.
fn ending(log: &str, stderr: &str) -> Ending {
    let panic = log.lines().rev().find_map(|line| line.split_once(">>PANIC<<").map(|(_, why)| why.trim()));
    match panic {
        Some(why) if why.contains("shutdown requested") => Ending::Shutdown,
        Some(why) if why.contains(ACPI_OFF) => Ending::Shutdown,
        Some(why) if why.contains("triple fault") || why.contains("3rd (") => Ending::Reset,
        Some(why) => Ending::Emulator(format!("bochs: {why}")),
        None if log.contains("bx_pc_system_c::Reset") && log.contains("SOFTWARE") => Ending::Reset,
        None => Ending::Emulator(format!("bochs ended: {}", complaint(stderr).unwrap_or("no reason given"))),
    }
}

/// The line after "Bochs is exiting with the following message:".
fn complaint(stderr: &str) -> Option<&str> {
    let (_, after) = stderr.split_once("following message:")?;
    after.lines().map(|line| line.trim_start_matches(['[', ']', ' '])).find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Boot, MachineKind};

    #[test]
    fn the_log_says_how_it_ended() {
        let log = "00227142467p[UNMAP ] >>PANIC<< Shutdown port: shutdown requested\n0i[CPU0  ] CPU is in\n";
        assert_eq!(ending(log, ""), Ending::Shutdown);
        let log = "0p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution\n";
        assert_eq!(ending(log, ""), Ending::Reset);
        let stderr =
            "====\nBochs is exiting with the following message:\n[      ] bochsrc:3: cpu directive malformed.\n====\n";
        assert_eq!(ending("", stderr), Ending::Emulator("bochs ended: bochsrc:3: cpu directive malformed.".into()));
    }

    #[test]
    fn configuration_names_memory_and_model() {
        let machine = Machine {
            kind: MachineKind::Bochs,
            boot: Boot::Grub,
            memory_mib: 96,
            cpu: Some("corei3_cnl".into()),
            ips: Some(QUICK_IPS),
            icount: false,
            timeout: None,
            trace: true,
            profile: None,
        };
        let text = configuration(&machine, "mode=file, dev=com1", "");
        for line in ["megs: 96", "com2: enabled=1, mode=file, dev=com2"] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(text.contains("model=corei3_cnl,"));
    }
}
