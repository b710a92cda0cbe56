//! QEMU, always with its translator: Gnomon is about machines without hardware help, and only the translator has `-icount`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::monitor::Monitor;
use super::{Child, Console, Ending, Input, Line, Machine, RunFolder};
use crate::cli::Boot;
use crate::image::{self, Payload, Protocol};
use crate::profile;
use crate::status::Failed;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The CPU model when none is asked for: everything the translator can do.
pub const CPU: &str = "max";

/// The control socket, in the run's folder.
const MONITOR: &str = "monitor";

pub(super) fn run(
    machine: &Machine,
    payload: &Payload,
    folder: &RunFolder,
    input: Input,
    console: &mut Console<'_>,
) -> anyhow::Result<Ending> {
    let boot = match machine.boot {
        Boot::Kernel => kernel_arguments(payload, folder.path())?,
        Boot::Grub => {
            image::make(payload, folder.path())?;
            ["-cdrom", "boot.iso", "-boot", "d"].map(String::from).to_vec()
        }
    };
    let stderr = folder.path().join("qemu.log");
    let monitor = Monitor::listen(&folder.path().join(MONITOR))?;
    let mut command = super::command(PROGRAM);
    arguments(&mut command, machine);
    if let Some(profile) = &machine.profile {
        symlink(&profile.plugin, folder.path().join(profile::PLUGIN))?;
        command.arg("-plugin").arg(profile.argument());
    }
    command.args(boot).args(disks(payload, folder.path())?).current_dir(folder.path());
    // COM1 is the program's own stdin and stdout: the one waits when the guest does not read, the other never waits.
    command.stdin(Stdio::piped()).stdout(fs::File::create(folder.com1())?).stderr(fs::File::create(&stderr)?);
    let mut child =
        Child::spawn(&mut command).map_err(|error| Failed::tool(format!("cannot start {PROGRAM}: {error}")))?;
    let line = Line { to: child.take_stdin(), drained: None };
    let ended = machine.watch(&mut child, folder, line, input, console)?;
    let powered_off = monitor.saw_power_off();
    Ok(match ended {
        Ok(status) => ending(status.code(), powered_off, &fs::read_to_string(&stderr).unwrap_or_default()),
        Err(killed) => killed,
    })
}

fn arguments(command: &mut Command, machine: &Machine) {
    command.args(["-accel", "tcg", "-machine", "pc", "-nodefaults", "-no-reboot", "-display", "none"]);
    command.args(["-cpu", machine.cpu.as_deref().unwrap_or(CPU)]);
    command.arg("-m").arg(format!("{}M", machine.memory_mib));
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.args(["-chardev", "stdio,id=com1,signal=off", "-serial", "chardev:com1"]);
    command.args(["-serial", if machine.trace { "file:com2" } else { "null" }]);
    command.arg("-chardev").arg(format!("socket,id=monitor,path={MONITOR}"));
    command.args(["-mon", "chardev=monitor,mode=control"]);
    if machine.icount {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
}

/// The files are linked into the run's folder under plain names, so that no path meets QEMU's own syntax.
fn kernel_arguments(payload: &Payload, folder: &Path) -> anyhow::Result<Vec<String>> {
    symlink(&payload.kernel, folder.join("kernel"))?;
    let mut arguments = vec!["-kernel".to_owned(), "kernel".to_owned()];
    if !payload.command_line.is_empty() {
        arguments.extend(["-append".to_owned(), payload.command_line.clone()]);
    }
    for (index, module) in payload.modules.iter().enumerate() {
        symlink(&module.file, folder.join(format!("m{index}")))?;
    }
    let lines: Vec<&str> = payload.modules.iter().map(|module| module.command_line.as_str()).collect();
    if payload.protocol == Protocol::Linux {
        // Here a comma in the value is nothing special, and there are no arguments.
        match payload.modules.as_slice() {
            [] => {}
            [_] => arguments.extend(["-initrd".to_owned(), "m0".to_owned()]),
            modules => {
                image::concatenate(modules, &folder.join("initrd"))?;
                arguments.extend(["-initrd".to_owned(), "initrd".to_owned()]);
            }
        }
    } else if !lines.is_empty() {
        arguments.extend(["-initrd".to_owned(), initrd(&lines)]);
    }
    Ok(arguments)
}

/// The guest's disks, on the two IDE channels. What a guest writes is forgotten unless it is asked for.
fn disks(payload: &Payload, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut arguments = Vec::new();
    for disk in &payload.disks {
        let place = disk.place;
        symlink(&disk.file, folder.join(format!("d{place}")))?;
        let snapshot = if disk.keep { "off" } else { "on" };
        arguments.push("-drive".to_owned());
        arguments.push(format!("file=d{place},format=raw,if=ide,index={place},snapshot={snapshot}"));
    }
    Ok(arguments)
}

/// The value of `-initrd` for modules `m0`, `m1`, ... with these command lines: commas separate modules, so one in an argument
/// is doubled.
fn initrd(command_lines: &[&str]) -> String {
    let module = |(index, line): (usize, &&str)| format!("m{index} {}", line.replace(',', ",,")).trim_end().to_owned();
    command_lines.iter().enumerate().map(module).collect::<Vec<_>>().join(",")
}

/// What QEMU's exit status means. The debug exit device turns a value into `2 * value + 1`, so every odd status is one, but 1 is
/// QEMU's own failure as well: then it has said why.
fn ending(code: Option<i32>, powered_off: bool, log: &str) -> Ending {
    let complaint = log.lines().rev().find(|line| line.starts_with(PROGRAM) && !line.contains("warning"));
    match (code, complaint) {
        (Some(0), _) if powered_off => Ending::Shutdown,
        (Some(0), _) => Ending::Reset,
        (Some(1) | None, Some(line)) => Ending::Emulator(line.to_owned()),
        (Some(code), _) if code & 1 == 1 => Ending::DebugExit((code >> 1).cast_unsigned()),
        (code, _) => Ending::Emulator(match code {
            Some(code) => format!("{PROGRAM} ended with status {code}: {}", log.trim()),
            None => format!("{PROGRAM} was killed by somebody else"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_module_arguments_are_doubled() {
        assert_eq!(initrd(&["name=a mem=16M -- x,y", "of=a"]), "m0 name=a mem=16M -- x,,y,m1 of=a");
        assert_eq!(initrd(&["", ""]), "m0,m1");
    }

    #[test]
    fn exit_statuses() {
        assert_eq!(ending(Some(0x21), false, ""), Ending::DebugExit(0x10));
        assert_eq!(ending(Some(1), false, ""), Ending::DebugExit(0), "a bare guest's status 0");
        assert_eq!(ending(Some(0), false, ""), Ending::Reset);
        assert_eq!(ending(Some(0), true, ""), Ending::Shutdown);
        let log = "qemu-system-x86_64: warning: x\nqemu-system-x86_64: Error loading uncompressed kernel\n";
        assert!(matches!(ending(Some(1), false, log), Ending::Emulator(line) if line.ends_with("uncompressed kernel")));
        assert!(matches!(ending(None, false, ""), Ending::Emulator(_)));
    }

    #[test]
    fn icount_and_trace_are_asked_for() {
        let machine = Machine {
            kind: crate::cli::MachineKind::Qemu,
            boot: Boot::Kernel,
            memory_mib: 128,
            cpu: None,
            ips: None,
            icount: true,
            timeout: None,
            trace: true,
            profile: None,
        };
        let mut command = Command::new(PROGRAM);
        arguments(&mut command, &machine);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        for part in ["-accel tcg", "-cpu max", "-m 128M", "-serial chardev:com1 -serial file:com2", "shift=0,sleep=off"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
